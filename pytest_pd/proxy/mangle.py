"""Faults in the answer itself: a stream taken apart and put together wrongly."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator, Mapping

from pytest_pd.proxy.fault import Fault
from pytest_pd.proxy.replies import error_body

_DONE = b"data: [DONE]"
STREAM_KINDS = frozenset(
    {
        "sse_error", "cut", "no_done", "duplicate_token", "missing_token",
        "empty_first", "bundle", "usage_wrong", "stall", "exit",
    }
)  # fmt: skip


class CutError(Exception):
    """The fault ``cut`` or ``sse_error``: nothing may follow on this connection."""


async def mangled(
    pieces: AsyncIterator[bytes], faults: Mapping[str, Fault]
) -> AsyncIterator[bytes]:
    """Yield the events of a stream as the faults have them.

    Raises:
        CutError: the connection is to be cut now.
    """
    token = 0
    bundle: list[bytes] = []
    async for event in _events(pieces):
        is_token = event.startswith(b"data: {") and b'"choices":[]' not in event
        if is_token:
            await _before(token, faults)
            for last in _ends(token, faults):
                yield last
                raise CutError
            token += 1
        size = faults["bundle"].size if "bundle" in faults and is_token else 1
        bundle += _changed(event, token - 1, is_token, faults)
        if len(bundle) >= size:
            yield b"".join(bundle)
            bundle = []
    if bundle:
        yield b"".join(bundle)


def mangled_body(body: bytes, faults: Mapping[str, Fault]) -> bytes:
    """Return a whole answer as the faults have it: only ``usage_wrong`` applies."""
    return _wrong_usage(body) if "usage_wrong" in faults else body


async def _events(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n\n")
        for event in whole:
            yield event + b"\n\n"
    if rest:
        yield rest


async def _before(token: int, faults: Mapping[str, Fault]) -> None:
    stall = faults.get("stall")
    if stall is not None and stall.at == token:
        await asyncio.sleep(stall.seconds)
    leave = faults.get("exit")
    if leave is not None and leave.at == token:
        os._exit(leave.status)


def _ends(token: int, faults: Mapping[str, Fault]) -> Iterator[bytes]:
    """Yield what is sent last when a fault ends the stream before this token."""
    error = faults.get("sse_error")
    if error is not None and error.at == token:
        body = error_body(500, "injected", kind="InternalServerError", code="fault")
        yield b"data: " + body + b"\n\n"
    cut = faults.get("cut")
    if cut is not None and cut.at == token:
        yield b""


def _changed(
    event: bytes, token: int, is_token: bool, faults: Mapping[str, Fault]
) -> Iterator[bytes]:
    if "no_done" in faults and event.startswith(_DONE):
        return
    if "usage_wrong" in faults and event.startswith(b"data: {"):
        event = b"data: " + _wrong_usage(event[6:].strip()) + b"\n\n"
    if is_token and "empty_first" in faults and token == 0:
        yield _without_text(event)
    if is_token and _is_at("missing_token", token, faults):
        return
    yield event
    if is_token and _is_at("duplicate_token", token, faults):
        yield event


def _is_at(kind: str, token: int, faults: Mapping[str, Fault]) -> bool:
    return kind in faults and faults[kind].at == token


def _wrong_usage(text: bytes) -> bytes:
    try:
        answer = json.loads(text)
        answer["usage"]["completion_tokens"] += 1
    except (ValueError, KeyError, TypeError):
        return text
    return json.dumps(answer).encode()


def _without_text(event: bytes) -> bytes:
    try:
        answer = json.loads(event[6:])
        choice = answer["choices"][0]
    except (ValueError, KeyError, TypeError, IndexError):
        return event
    choice["finish_reason"] = None
    if "text" in choice:
        choice["text"] = ""
    elif isinstance(choice.get("delta"), dict):
        choice["delta"]["content"] = ""
    return b"data: " + json.dumps(answer).encode() + b"\n\n"
