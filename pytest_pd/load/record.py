"""Records: one row per request, 15 bytes per event, in arrays made beforehand."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Outcome(IntEnum):
    """How a request ended. Only `OK` counts as success."""

    NOT_SENT = 0
    OK = 1
    IN_FLIGHT = 2
    """Sent, and nobody saw the end: never in a whole run."""
    CONNECT = 3
    DISCONNECT = 4
    """The connection ended before the answer did."""
    TIMEOUT = 5
    HTTP_STATUS = 6
    SSE_ERROR = 7
    """An error inside a stream that began with status 200."""
    MALFORMED = 8
    NO_OUTPUT = 9
    """A well-formed answer without a single token."""


class Phase(IntEnum):
    """Which part of the run a request belongs to."""

    WARMUP = 1
    MEASURED = 2


class Event(IntFlag):
    """What one server-sent event was."""

    CONTENT = 1
    COALESCED = 2
    """Read together with other content: it came in (previous stamp, stamp]."""
    USER_STAMP = 4
    """The kernel gave no stamp; the time is that of our read."""
    FINISH = 8
    USAGE = 16
    REASONING = 32
    COMMENT = 64


class TokenSource(IntEnum):
    """Where the number of output tokens of a request is from."""

    UNKNOWN = 0
    USAGE = 1
    TOKEN_IDS = 2
    EVENTS = 3
    """One event taken as one token, for want of anything better."""


REQUEST = np.dtype(
    [
        ("phase", "u1"),
        ("outcome", "u1"),
        ("token_source", "u1"),
        ("done_marker", "u1"),
        ("status", "u2"),
        ("shard", "u2"),
        ("connections", "u2"),
        ("coalesced", "i4"),
        ("session", "i4"),
        ("wanted_tokens", "i4"),
        ("input_tokens", "i4"),
        ("output_tokens", "i4"),
        ("asked_tokens", "i4"),
        ("cached_tokens", "i4"),
        ("event_start", "i8"),
        ("event_count", "i4"),
        ("text_bytes", "i4"),
        ("text_start", "i8"),
        ("intended_ns", "i8"),
        ("sent_before_ns", "i8"),
        ("sent_after_ns", "i8"),
        ("connect_ns", "i8"),
        ("head_ns", "i8"),
        ("end_ns", "i8"),
    ]
)
"""A row per prompt. `wanted_tokens` is the prompt's length as we count it, 0 for
unknown; `input_tokens` what the server says, else the same; `asked_tokens` how many
output tokens had to come, 0 where an answer may end earlier or nobody knows. Times are
monotonic ns of the client's host; `connect_ns` is a duration, 0 where a connection was
used again."""

EVENT_COLUMNS = {"stamp_ns": "i8", "lag_ns": "u4", "flags": "u1", "tokens": "u2"}
EVENT_BYTES = sum(np.dtype(kind).itemsize for kind in EVENT_COLUMNS.values())
LAG_LIMIT_NS = 2**32 - 1


def _array(directory: Path | None, name: str, kind: Any, size: int) -> Array:
    if directory is None:
        return np.zeros(size, kind)
    # the file is sparse: untouched pages cost neither memory nor disk
    return np.lib.format.open_memmap(
        directory / f"{name}.npy", mode="w+", dtype=kind, shape=(size,)
    )


def events_of(rows: Array) -> Array:
    """Return the indices of all events of `rows`, in order."""
    counts = rows["event_count"].astype("i8")
    firsts = np.repeat(rows["event_start"] - np.cumsum(counts) + counts, counts)
    return firsts + np.arange(len(firsts))


class Recorder:
    """Rows and event columns, in memory or in files that outlive a killed process.

    Args:
        rows: Number of prompts.
        events: Events expected; more are taken at the cost of a copy.
        directory: Where to map the arrays; None for private memory.
    """

    def __init__(
        self, rows: int, events: int, *, directory: Path | None = None
    ) -> None:
        self._directory = directory
        self.requests = _array(directory, "requests", REQUEST, rows)
        self.columns = {
            name: _array(directory, name, kind, max(events, 1))
            for name, kind in EVENT_COLUMNS.items()
        }
        self.texts = bytearray()
        self.errors: dict[int, str] = {}
        self.used = 0

    def add_events(self, block: dict[str, Array]) -> int:
        """Append a block of events and return where it starts."""
        start, count = self.used, len(block["stamp_ns"])
        if start + count > len(self.columns["stamp_ns"]):
            self._grow(start + count)
        for name, column in self.columns.items():
            column[start : start + count] = block[name]
        self.used += count
        return start

    def add_text(self, text: bytes) -> int:
        """Append an answer and return where it starts."""
        start = len(self.texts)
        self.texts += text
        return start

    def _grow(self, needed: int) -> None:
        size = max(needed, 2 * len(self.columns["stamp_ns"]))
        for name, old in self.columns.items():
            kept = np.array(old[: self.used])
            self.columns[name] = _array(self._directory, name, old.dtype, size)
            self.columns[name][: self.used] = kept
