"""One call from its requests to the answer: collected, or streamed event by event."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from aiohttp import web

from pytest_pd.reference.faults import Fault
from pytest_pd.reference.fields import ApiError, Body
from pytest_pd.reference.protocol import Call
from pytest_pd.reference.request import Answer, Event, Request
from pytest_pd.reference.responses import Choice, Json, Writer
from pytest_pd.reference.tamper import Frame, tampered

Mail = asyncio.Queue[tuple[Request, Event]]


def asked_name(http: web.Request, body: Body, name: str) -> str:
    """Return the id of the answer; a router chooses it by header."""
    asked = http.headers.get("X-Request-Id") or body.get("request_id")
    return f"{name.partition('-')[0]}-{asked}" if asked else name


def make_choices(call: Call, name: str) -> list[Choice]:
    """Return one choice per prompt and answer, each with a request of its own."""
    made: list[Choice] = []
    for prompt, text in zip(call.prompts, call.texts, strict=True):
        for copy in range(call.choices):
            index = len(made)
            request = Request(
                name=f"{name}-{index}-{secrets.token_hex(4)}",
                prompt=prompt,
                sampling=call.sampling.for_copy(copy),
                answer=Answer(call.sampling.stop, keep_stop=call.sampling.keep_stop),
                kv_transfer=call.kv_transfer,
                arrived_s=time.perf_counter(),
            )
            made.append(Choice(index, request, text))
    return made


async def collect(choices: Sequence[Choice], mail: Mail) -> None:
    """Wait until all choices are finished.

    Raises:
        ApiError: the engine gave one up.
    """
    by_request = {id(choice.request): choice for choice in choices}
    while any(choice.last is None for choice in choices):
        request, event = await mail.get()
        by_request[id(request)].take(event)
        if event.finish == "error":
            raise _engine_error(event)


async def stream(
    http: web.Request,
    writer: Writer,
    choices: Sequence[Choice],
    mail: Mail,
    faults: Sequence[Fault],
) -> web.StreamResponse:
    """Send every event as it comes, then the usage, then ``[DONE]``."""
    response = web.StreamResponse()
    response.content_type = "text/event-stream"
    response.charset = "utf-8"
    await response.prepare(http)
    frames = _frames(writer, choices, mail)
    for fault in faults:
        frames = tampered(fault, frames)
    with suppress(ConnectionResetError):  # the client left, or we are stopping
        async for frame in frames:
            if frame.kind == "cut":
                assert http.transport is not None
                http.transport.abort()
                break
            await response.write(_line(frame))
        else:
            await response.write_eof()
    return response


async def _frames(
    writer: Writer, choices: Sequence[Choice], mail: Mail
) -> AsyncIterator[Frame]:
    if writer.call.chat:
        for choice in choices:
            yield Frame("opening", writer.opening(choice))
    by_request = {id(choice.request): choice for choice in choices}
    while any(choice.last is None for choice in choices):
        request, event = await mail.get()
        choice = by_request[id(request)]
        first = not choice.tokens
        choice.take(event)
        yield Frame("token", _content(writer, choice, event, first=first))
    if writer.call.include_usage:
        yield Frame("usage", writer.closing(choices))
    yield Frame("done", {})


def _content(writer: Writer, choice: Choice, event: Event, *, first: bool) -> Json:
    if event.finish == "error":
        return _engine_error(event).body
    return writer.chunk(choice, event, first=first)


def _engine_error(event: Event) -> ApiError:
    kind = "InternalServerError"
    return ApiError(f"Internal server error: {event.error}", status=500, kind=kind)


def _line(frame: Frame) -> bytes:
    if frame.kind == "done":
        return b"data: [DONE]\n\n"
    text = json.dumps(frame.content, separators=(",", ":"))
    return f"data: {text}\n\n".encode()
