"""From the bytes of one answer and the times of its reads to rows of the record."""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_pd.load.http_message import ChunkWalker, Framing, Head
from pytest_pd.load.record import LAG_LIMIT_NS, Array, Event
from pytest_pd.load.sse import Answer, AnswerReader, error_text, split_events


@dataclass(slots=True)
class Reads:
    """The reads of one answer: kernel stamp, user stamp, bytes so far.

    All times are monotonic ns; a kernel stamp of 0 means that there was none.
    """

    kernel_ns: array[int]
    user_ns: array[int]
    ends: array[int]

    @classmethod
    def empty(cls) -> Reads:
        return cls(array("q"), array("q"), array("q"))


@dataclass(frozen=True, slots=True)
class Decoded:
    """One answer, read."""

    answer: Answer
    block: dict[str, Array]
    coalesced: int


def payload_of(raw: bytearray, head: Head) -> tuple[bytes, Array, Array, bool]:
    """Take the framing off a body.

    Returns:
        The payload; for each piece of it the offset in the payload and in
        `raw`; and whether the body was complete by its framing.
    """
    if head.framing is not Framing.CHUNKED:
        payload = bytes(raw[head.size :])
        whole = head.framing is Framing.CLOSE or len(payload) >= head.length
        return payload, np.array([0]), np.array([head.size]), whole
    walker = ChunkWalker(head.size, [], [])
    walker.walk(raw)
    pieces = [
        raw[start : start + size]
        for start, size in zip(walker.starts, walker.sizes, strict=True)
    ]
    starts, sizes = walker.starts, walker.sizes
    if not walker.is_complete and (cut := raw.find(b"\r\n", walker.position)) >= 0:
        # the chunk that was being received counts as far as it came
        pieces.append(raw[cut + 2 :])
        starts, sizes = [*starts, cut + 2], [*sizes, len(raw) - cut - 2]
    if not starts:
        return b"", np.array([0]), np.array([head.size]), walker.is_complete
    offsets = np.cumsum([0, *sizes[:-1]])
    return b"".join(pieces), offsets, np.array(starts), walker.is_complete


def decode_stream(raw: bytearray, head: Head, reads: Reads) -> tuple[Decoded, bool]:
    """Read an event stream; the second value says whether it was whole.

    An event arrived when the read that holds the end of its blank line did.
    """
    payload, in_payload, in_raw, whole = payload_of(raw, head)
    events, ends = split_events(payload)
    answer = AnswerReader().read_all(events)
    last_bytes = np.array(ends, "i8")[np.array(answer.positions, "i8")] - 1
    piece = np.searchsorted(in_payload, last_bytes, side="right") - 1
    raw_ends = last_bytes - in_payload[piece] + in_raw[piece] + 1
    read = np.searchsorted(np.frombuffer(reads.ends, "i8"), raw_ends, side="left")
    block, coalesced = _event_block(answer, read, reads)
    return Decoded(answer, block, coalesced), whole


def _event_block(
    answer: Answer, read: Array, reads: Reads
) -> tuple[dict[str, Array], int]:
    kernel = np.frombuffer(reads.kernel_ns, "i8")[read]
    user = np.frombuffer(reads.user_ns, "i8")[read]
    flags = np.array(answer.flags, "u1")
    has_content = (flags & Event.CONTENT) != 0
    per_read = np.bincount(read[has_content], minlength=len(reads.ends))
    shared = has_content & (per_read[read] > 1)
    flags[shared] |= np.uint8(Event.COALESCED)
    flags[kernel == 0] |= np.uint8(Event.USER_STAMP)
    block = {
        "stamp_ns": np.where(kernel == 0, user, kernel),
        "lag_ns": np.clip(np.where(kernel == 0, 0, user - kernel), 0, LAG_LIMIT_NS),
        "flags": flags,
        "tokens": np.clip(np.array(answer.tokens, "i8"), 0, 65535),
    }
    return block, int(shared.sum())


def decode_error(raw: bytearray, head: Head) -> str:
    """Return what an answer without events says, for the list of failures."""
    payload = payload_of(raw, head)[0]
    try:
        message: Any = json.loads(payload)
    except ValueError:
        return payload[:300].decode("utf-8", "replace")
    return error_text(message)
