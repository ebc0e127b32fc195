"""What a decode worker answers, handed to the client piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from pytest_pd.proxy.exchange import Exchange
from pytest_pd.proxy.mangle import STREAM_KINDS, CutError, mangled, mangled_body
from pytest_pd.proxy.replies import Answer, stream_error_event
from pytest_pd.proxy.stage import Stage
from pytest_pd.proxy.upstream import Reply, UpstreamError
from pytest_pd.proxy.worker import Role

_DONE = b"[DONE]"
_TAIL_BYTES = 24
_ENGINE_ERROR = b'data: {"error"'


def whole_response(answer: Answer, exchange: Exchange) -> web.Response:
    """Return an answer that is complete, with the witness headers."""
    exchange.pieces, exchange.size_bytes = 1, len(answer.body)
    return web.Response(
        status=answer.status,
        body=answer.body,
        headers={**answer.headers, **exchange.headers()},
    )


async def relay(
    request: web.Request, exchange: Exchange, reply: Reply, stage: Stage
) -> web.StreamResponse:
    """Send the reply on to the client and return the response.

    A stream that breaks ends with an error event and a cut connection: without
    [DONE] and without the last chunk of HTTP, so that no client takes it for whole.

    Raises:
        ConnectionError: the client has gone.
    """
    if reply.stream is None:
        body = mangled_body(reply.first, exchange.faults)
        return whole_response(Answer(reply.status, body, reply.headers), exchange)
    response = web.StreamResponse(
        status=reply.status, headers={**reply.headers, **exchange.headers()}
    )
    exchange.stage = "stream"
    await response.prepare(request)
    pieces = _checked(reply, exchange, stage)
    if exchange.faults.keys() & STREAM_KINDS:
        pieces = mangled(pieces, exchange.faults)
    try:
        async for piece in pieces:
            exchange.pieces += 1
            exchange.size_bytes += len(piece)
            await response.write(piece)
    except UpstreamError as failure:
        await _tell_broken(response, exchange, stage, failure)
        _cut(request)
    except CutError:
        exchange.outcome = "fault_cut"
        _cut(request)
    return response


async def _checked(
    reply: Reply, exchange: Exchange, stage: Stage
) -> AsyncIterator[bytes]:
    """Yield the pieces of a stream; one that ends without [DONE] is broken."""
    tail = reply.first
    _look_for_error(tail, exchange, stage)
    yield tail
    async for piece in reply.rest():
        if piece.startswith(_ENGINE_ERROR):
            _look_for_error(piece, exchange, stage)
        yield piece
        tail = piece if len(piece) >= _TAIL_BYTES else (tail + piece)[-_TAIL_BYTES:]
    if _DONE not in tail[-_TAIL_BYTES:]:
        detail = "the stream ended without [DONE]"
        raise UpstreamError("no_done", detail, taken=True)


def _look_for_error(piece: bytes, exchange: Exchange, stage: Stage) -> None:
    """Count an error event of the engine's own; it is passed on as it is."""
    if piece.startswith(_ENGINE_ERROR):
        exchange.outcome = "engine_error_event"
        worker = exchange.served_by[Role.DECODE]
        stage.metrics.stream_errors.add(worker, "engine_event")


async def _tell_broken(
    response: web.StreamResponse,
    exchange: Exchange,
    stage: Stage,
    failure: UpstreamError,
) -> None:
    worker = exchange.served_by[Role.DECODE]
    exchange.outcome = "stream_broken"
    stage.metrics.stream_errors.add(worker, failure.reason)
    stage.note_by_name(worker, failure)
    await response.write(stream_error_event(worker, failure.reason))


def _cut(request: web.Request) -> None:
    """Close the connection once what was written is out."""
    if request.transport is not None:
        request.transport.close()
