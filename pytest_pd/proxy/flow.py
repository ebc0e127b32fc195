"""A generation request from its arrival to its last byte."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from aiohttp import web
from multidict import CIMultiDict

from pytest_pd.proxy.ask import (
    SESSION_HEADER,
    Ask,
    Transfer,
    decode_body,
    handed_params,
    has_several_prompts,
    parse_ask,
    prefill_body,
    routing_key,
    single_stage_reason,
)
from pytest_pd.proxy.exchange import CLIENT_GONE, Exchange
from pytest_pd.proxy.fault import FaultTable
from pytest_pd.proxy.limit import (
    Admission,
    QueueFullError,
    QueueTimeoutError,
    TokenBucket,
)
from pytest_pd.proxy.metrics import Metrics
from pytest_pd.proxy.relay import relay, whole_response
from pytest_pd.proxy.replies import (
    Answer,
    RefusedError,
    error_answer,
    overloaded,
    rate_limited,
)
from pytest_pd.proxy.stage import Stage
from pytest_pd.proxy.worker import Role

log = logging.getLogger("pytest_pd.proxy")

Params = Mapping[str, Any]


@dataclass(slots=True)
class Handover:
    """What prefill has left for decode.

    Attributes:
        due: Whether prefill has (still, or again) to run.
        params: ``kv_transfer_params`` for the decode stage.
    """

    due: bool
    params: Params | None = None

    def spend(self) -> None:
        """A decode worker may have pulled the KV, which frees it on the other side."""
        self.due = self.due or self.params is not None


@dataclass(slots=True)
class Flow:
    """Takes generation requests through limit, queue, prefill and decode."""

    transfer: Transfer
    prefill: Stage
    decode: Stage
    bucket: TokenBucket
    admission: Admission
    metrics: Metrics
    faults: FaultTable
    _last_params: Params | None = field(default=None)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one generation request; every way out is counted and logged."""
        exchange = Exchange(
            _request_id(request), request.path, self.faults.next_request()
        )
        self.metrics.requests.add(exchange.route)
        try:
            response = await self._serve(request, exchange)
            exchange.status = exchange.status or response.status
        except RefusedError as refusal:
            exchange.outcome = refusal.outcome
            exchange.status = refusal.answer.status
            return whole_response(refusal.answer, exchange)
        except (asyncio.CancelledError, ConnectionError):
            exchange.outcome, exchange.status = "client_gone", CLIENT_GONE
            self.metrics.disconnects.add(exchange.stage)
            raise
        except web.HTTPException as error:
            exchange.outcome, exchange.status = "refused", error.status
            raise
        except Exception:
            exchange.outcome, exchange.status = "internal_error", 500
            log.exception("request id=%s: a defect of the proxy", exchange.request_id)
            return whole_response(_internal_error(), exchange)
        else:
            return response
        finally:
            self._finish(exchange)

    async def _serve(
        self, request: web.Request, exchange: Exchange
    ) -> web.StreamResponse:
        if "status" in exchange.faults:
            raise _injected(exchange.faults["status"].status)
        if wait_s := self.bucket.take():
            self.metrics.rate_limited.add()
            raise rate_limited(wait_s)
        ask = parse_ask(await request.read())
        async with self._place(exchange):
            self.decode.require()
            return await self._two_stages(request, exchange, ask)

    @asynccontextmanager
    async def _place(self, exchange: Exchange) -> AsyncIterator[None]:
        started_s = time.monotonic()
        try:
            async with self.admission.slot():
                exchange.queue_s = time.monotonic() - started_s
                yield
        except QueueFullError as error:
            self.metrics.queue_refused.add("queue_full")
            raise overloaded("queue_full", "The queue of the proxy is full.") from error
        except QueueTimeoutError as error:
            self.metrics.queue_refused.add("queue_timeout")
            waited = time.monotonic() - started_s
            raise overloaded(
                "queue_timeout", f"No place came free within {waited:.1f} s."
            ) from error

    async def _two_stages(
        self, request: web.Request, exchange: Exchange, ask: Ask
    ) -> web.StreamResponse:
        headers = CIMultiDict(request.headers)
        headers["X-Request-Id"] = exchange.request_id
        key = self._key(request, exchange, ask)
        handover = Handover(due=not self._single_stage(exchange, ask))

        async def prepare() -> bytes:
            if handover.due:
                handover.params = await self._prefill(exchange, ask, key, headers)
                handover.due = False
            return decode_body(ask, handover.params)

        async with self.decode.open(
            exchange, key, headers, prepare, on_taken=handover.spend
        ) as reply:
            exchange.first_byte_s = reply.first_at_s - exchange.started_s
            return await relay(request, exchange, reply, self.decode)

    def _key(self, request: web.Request, exchange: Exchange, ask: Ask) -> bytes:
        if "ignore_session" in exchange.faults:
            return exchange.request_id.encode(errors="surrogateescape")
        return routing_key(request.headers.get(SESSION_HEADER), ask.fields)

    def _single_stage(self, exchange: Exchange, ask: Ask) -> bool:
        if "bypass_prefill" in exchange.faults:
            return True
        reason = single_stage_reason(ask, self.transfer)
        if reason:
            self.metrics.single_stage.add(reason)
        return bool(reason)

    async def _prefill(
        self, exchange: Exchange, ask: Ask, key: bytes, headers: Mapping[str, str]
    ) -> Params | None:
        """Run the prefill stage and return what it gave for the decode stage."""
        fields = ask.fields or {}
        started_s = time.monotonic()

        async def prepare() -> bytes:
            tokens = 1
            if "prefill_decodes" in exchange.faults:
                tokens = int(fields.get("max_tokens") or 16)
            return prefill_body(fields, self.transfer, max_tokens=tokens)

        async with self.prefill.open(exchange, key, headers, prepare) as reply:
            if reply.status != 200:
                answer = Answer(reply.status, reply.first, reply.headers)
                raise RefusedError(answer, f"prefill_status_{reply.status}")
            params = self._handed(exchange, ask, reply.first)
        exchange.prefill_s = time.monotonic() - started_s
        if "kv_late" in exchange.faults:
            await asyncio.sleep(exchange.faults["kv_late"].seconds)
        return params

    def _handed(self, exchange: Exchange, ask: Ask, answer: bytes) -> Params | None:
        """Return the parameters in a prefill answer, and count what it gave."""
        worker = exchange.served_by[Role.PREFILL]
        if self.transfer is Transfer.SHARED_STORAGE:
            self.metrics.handovers.add(worker, "shared_storage")
            return None
        params = handed_params(answer)
        if params is not None and has_several_prompts(ask.fields or {}):
            params = None
        missing = "none" if self.transfer is Transfer.PULL else "shared_storage"
        self.metrics.handovers.add(worker, missing if params is None else "params")
        if "kv_params_dropped" in exchange.faults:
            return None
        before, self._last_params = self._last_params, params
        if "kv_params_stale" in exchange.faults and before is not None:
            return before
        return params

    def _finish(self, exchange: Exchange) -> None:
        route, metrics = exchange.route, self.metrics
        metrics.responses.add(route, str(exchange.status))
        metrics.outcomes.add(route, exchange.outcome)
        metrics.request_s.observe(exchange.elapsed_s(), route)
        metrics.queue_s.observe(exchange.queue_s, route)
        if exchange.prefill_s is not None:
            metrics.prefill_s.observe(exchange.prefill_s, route)
        if exchange.first_byte_s is not None:
            metrics.ttft_s.observe(exchange.first_byte_s, route)
        exchange.write_line()


def _request_id(request: web.Request) -> str:
    """Return the client's id for the request, or one of our own."""
    given = request.headers.get("X-Request-Id", "")
    usable = given.isascii() and given.isprintable() and " " not in given
    return given if given and usable else f"pd-{uuid4().hex}"


def _injected(status: int) -> RefusedError:
    answer = error_answer(
        status,
        "Injected by a fault of the proxy.",
        kind="injected_fault",
        code="fault",
        retry_after_s=1 if status == 429 else None,
    )
    return RefusedError(answer, "fault_status")


def _internal_error() -> Answer:
    return error_answer(
        500, "A defect of the proxy; its log says more.", kind="internal", code="defect"
    )
