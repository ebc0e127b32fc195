"""From the bytes of one answer and the times of its reads to rows of the record."""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np

from pytest_pd.load.http_message import BadHttp, ChunkWalker, Framing, Head
from pytest_pd.load.record import LAG_LIMIT_NS, Array, Event
from pytest_pd.load.sse import Answer, AnswerReader, error_text


class Reads:
    """The reads of one answer: kernel stamp, user stamp, bytes so far.

    All times are monotonic ns; a kernel stamp of 0 means that there was none.
    """

    __slots__ = ("words",)

    def __init__(self) -> None:
        self.words = array("q")

    def add(self, kernel_ns: int, user_ns: int, end: int) -> None:
        """Take one read: its stamps, and how many bytes there are with it."""
        self.words.extend((kernel_ns, user_ns, end))

    def columns(self) -> Array:
        """Return kernel stamps, user stamps and ends: int64, shape (3, reads)."""
        return np.frombuffer(self.words, "i8").reshape(-1, 3).T


@dataclass(frozen=True, slots=True)
class Payload:
    """A body without its framing.

    Attributes:
        data: The payload.
        in_data, in_raw: Offset of each piece of it in `data` and in the raw bytes.
        is_whole: The body was complete by its framing.
        fault: What is wrong with the framing; empty for nothing.
    """

    data: bytes
    in_data: Array
    in_raw: Array
    is_whole: bool
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Decoded:
    """One answer, read.

    Attributes:
        answer: What it said.
        block: Columns of its events.
        coalesced: How many of them shared a read.
        is_whole, fault: Of its framing, as in `Payload`.
    """

    answer: Answer
    block: dict[str, Array]
    coalesced: int
    is_whole: bool
    fault: str


def payload_of(raw: bytearray, head: Head) -> Payload:
    """Take the framing off a body."""
    if head.framing is not Framing.CHUNKED:
        data = bytes(raw[head.size :])
        whole = head.framing is Framing.CLOSE or len(data) >= head.length
        return Payload(data, np.array([0]), np.array([head.size]), whole)
    if (pieces := _plain_chunks(raw, head.size)) is not None:
        return _joined(pieces, head.size)
    return _walked(raw, head.size)


def _plain_chunks(raw: bytearray, start: int) -> list[bytes] | None:
    """Split a whole body none of whose payloads holds CRLF; None if one does."""
    parts = bytes(memoryview(raw)[start:]).split(b"\r\n")
    if parts[-3:] != [b"0", b"", b""] or len(parts) % 2 == 0:
        return None
    try:
        sizes = list(map(int, parts[:-3:2], repeat(16)))
    except ValueError:
        return None
    return parts if sizes == list(map(len, parts[1:-3:2])) else None


def _joined(parts: list[bytes], start: int) -> Payload:
    payloads = parts[1:-3:2]
    sizes = np.fromiter(map(len, payloads), "i8", len(payloads))
    lines = np.fromiter(map(len, parts[:-3:2]), "i8", len(payloads))
    in_data = np.cumsum(sizes) - sizes
    in_raw = start + np.cumsum(sizes + lines + 4) - sizes - 2
    return Payload(b"".join(payloads), in_data, in_raw, is_whole=True)


def _walked(raw: bytearray, start: int) -> Payload:
    walker, fault = ChunkWalker(start, [], []), ""
    try:
        walker.walk(raw)
    except BadHttp as error:
        fault = error.fact
    starts, sizes = walker.starts, walker.sizes
    pieces = [raw[at : at + size] for at, size in zip(starts, sizes, strict=True)]
    cut = raw.find(b"\r\n", walker.position)
    if not walker.is_complete and not fault and cut >= 0:
        # the chunk that was being received counts as far as it came
        pieces.append(raw[cut + 2 :])
        starts, sizes = [*starts, cut + 2], [*sizes, len(raw) - cut - 2]
    if not starts:
        starts, sizes = [start], [0]
    return Payload(
        data=b"".join(pieces),
        in_data=np.cumsum([0, *sizes[:-1]]),
        in_raw=np.array(starts),
        is_whole=walker.is_complete,
        fault=fault,
    )


def decode_stream(raw: bytearray, head: Head, reads: Reads) -> Decoded:
    """Read an event stream.

    An event arrived when the read that holds the end of its blank line did.
    """
    payload = payload_of(raw, head)
    answer = AnswerReader().read(payload.data)
    times = reads.columns()
    last_bytes = answer.ends - 1
    piece = np.searchsorted(payload.in_data, last_bytes, side="right") - 1
    raw_ends = last_bytes - payload.in_data[piece] + payload.in_raw[piece] + 1
    read = np.searchsorted(times[2], raw_ends, side="left")
    block, coalesced = _event_block(answer, read, times)
    return Decoded(answer, block, coalesced, payload.is_whole, payload.fault)


def _event_block(
    answer: Answer, read: Array, times: Array
) -> tuple[dict[str, Array], int]:
    kernel, user = times[0][read], times[1][read]
    flags = answer.flags
    has_content = (flags & Event.CONTENT) != 0
    per_read = np.bincount(read[has_content], minlength=times.shape[1])
    shared = has_content & (per_read[read] > 1)
    flags[shared] |= np.uint8(Event.COALESCED)
    flags[kernel == 0] |= np.uint8(Event.USER_STAMP)
    block = {
        "stamp_ns": np.where(kernel == 0, user, kernel),
        "lag_ns": np.clip(np.where(kernel == 0, 0, user - kernel), 0, LAG_LIMIT_NS),
        "flags": flags,
        "tokens": np.clip(answer.tokens, 0, 65535),
    }
    return block, int(shared.sum())


def decode_error(raw: bytearray, head: Head) -> str:
    """Return what an answer without events says, for the list of failures."""
    payload = payload_of(raw, head).data
    try:
        message: Any = json.loads(payload)
    except ValueError:
        return payload[:300].decode("utf-8", "replace")
    return error_text(message)
