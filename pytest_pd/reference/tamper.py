"""Faults that the client sees: refusals, and streams that are not as they should be."""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pytest_pd.reference.faults import Fault
from pytest_pd.reference.fields import ApiError
from pytest_pd.reference.logs import Clock


@dataclass(frozen=True, slots=True)
class Frame:
    """One event of a stream before it is written; ``cut`` drops the connection."""

    kind: Literal["opening", "token", "usage", "done", "cut"]
    content: dict[str, Any]


Frames = AsyncIterator[Frame]


async def strike_before(faults: Sequence[Fault], clock: Clock) -> None:
    """Do what the faults at the seam ``http`` ask for, before the engine is asked.

    Raises:
        ApiError: the fault is a refusal.
    """
    for fault in faults:
        options = fault.options
        if fault.kind == "stall":
            await asyncio.sleep(float(options["seconds"]))
        elif fault.kind == "clock_step":
            clock.ahead_s = float(options["seconds"])
        elif fault.kind == "crash":
            os._exit(int(options["code"]))
        elif fault.kind == "http_error":
            status = int(options["status"])
            kind = "NotFoundError" if status == 404 else "InternalServerError"
            raise ApiError(
                "This error is a fault on purpose.", status=status, kind=kind
            )


def tampered(fault: Fault, frames: Frames) -> Frames:
    """Return `frames` with what a fault at the seam ``stream`` does to them."""
    return _STREAM[fault.kind](fault, frames)


async def _numbered(frames: Frames) -> AsyncIterator[tuple[int, Frame]]:
    """Yield frames with the number of token frames before them; -1 for others."""
    count = 0
    async for frame in frames:
        if frame.kind == "token":
            yield count, frame
            count += 1
        else:
            yield -1, frame


async def _stream_error(fault: Fault, frames: Frames) -> Frames:
    async for number, frame in _numbered(frames):
        if number == fault.options["at"]:
            error = ApiError("This error is a fault on purpose.", status=500)
            yield Frame("token", error.body)
            return
        yield frame


async def _stream_cut(fault: Fault, frames: Frames) -> Frames:
    async for number, frame in _numbered(frames):
        if number == fault.options["at"]:
            yield Frame("cut", {})
            return
        yield frame


async def _stream_crash(fault: Fault, frames: Frames) -> Frames:
    async for number, frame in _numbered(frames):
        if number == fault.options["at"]:
            os._exit(int(fault.options["code"]))
        yield frame


async def _stream_stall(fault: Fault, frames: Frames) -> Frames:
    async for number, frame in _numbered(frames):
        if number == fault.options["at"]:
            await asyncio.sleep(float(fault.options["seconds"]))
        yield frame


async def _no_done(fault: Fault, frames: Frames) -> Frames:
    async for frame in frames:
        if frame.kind != "done":
            yield frame


async def _token_twice(fault: Fault, frames: Frames) -> Frames:
    async for number, frame in _numbered(frames):
        yield frame
        if number == fault.options["at"]:
            yield frame


async def _token_missing(fault: Fault, frames: Frames) -> Frames:
    async for number, frame in _numbered(frames):
        if number != fault.options["at"]:
            yield frame


async def _first_chunk_empty(fault: Fault, frames: Frames) -> Frames:
    async for number, frame in _numbered(frames):
        if number == 0:
            yield _with_text(frame, "")
        yield frame


async def _tokens_bundled(fault: Fault, frames: Frames) -> Frames:
    size, text = int(fault.options["size"]), ""
    async for number, frame in _numbered(frames):
        if number < 0 or "error" in frame.content:
            yield frame
            continue
        text += _text(frame)
        if (number + 1) % size == 0 or _finished(frame):
            yield _with_text(frame, text, keep_end=True)
            text = ""


async def _usage_wrong(fault: Fault, frames: Frames) -> Frames:
    async for frame in frames:
        content = frame.content
        if frame.kind == "usage":
            usage = dict(content["usage"])
            usage["completion_tokens"] += int(fault.options["by"])
            content = {**content, "usage": usage}
        yield replace(frame, content=content)


def _finished(frame: Frame) -> bool:
    return bool(frame.content["choices"][0]["finish_reason"])


def _text(frame: Frame) -> str:
    choice = frame.content["choices"][0]
    return str(choice["text"] if "text" in choice else choice["delta"]["content"])


def _with_text(frame: Frame, text: str, *, keep_end: bool = False) -> Frame:
    content = copy.deepcopy(frame.content)
    choice = content["choices"][0]
    if "text" in choice:
        choice["text"] = text
    else:
        choice["delta"]["content"] = text
    if not keep_end:
        choice["finish_reason"] = None
    return replace(frame, content=content)


_STREAM: Mapping[str, Callable[[Fault, Frames], Frames]] = {
    "stream_error": _stream_error,
    "stream_cut": _stream_cut,
    "stream_crash": _stream_crash,
    "stream_stall": _stream_stall,
    "no_done": _no_done,
    "token_twice": _token_twice,
    "token_missing": _token_missing,
    "first_chunk_empty": _first_chunk_empty,
    "tokens_bundled": _tokens_bundled,
    "usage_wrong": _usage_wrong,
}
