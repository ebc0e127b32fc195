"""The second engine: httpx, for hosts without epoll or where its stack is wanted.

Over our own transport it has the kernel's stamps, too. Over httpx's stamps are taken in
user space when the bytes reach us, and every event says so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from pytest_pd.load.clock import NS
from pytest_pd.load.connection import Exchange
from pytest_pd.load.dispatch import Dispatcher
from pytest_pd.load.engine import TICK_NS, Counters, Settle
from pytest_pd.load.http_message import Framing, Head
from pytest_pd.load.prompts import Prompt
from pytest_pd.load.record import Outcome
from pytest_pd.load.target import Target, request_body
from pytest_pd.load.transport import StampingTransport

_FAILURES: tuple[tuple[type[Exception], Outcome], ...] = (
    (httpx.ConnectError, Outcome.CONNECT),
    (httpx.ConnectTimeout, Outcome.CONNECT),
    (httpx.TimeoutException, Outcome.TIMEOUT),
    (httpx.RemoteProtocolError, Outcome.DISCONNECT),
    (httpx.NetworkError, Outcome.DISCONNECT),
    (httpx.HTTPError, Outcome.MALFORMED),
)


class HttpxEngine:
    """Same interface as `KernelEngine`, over `httpx.AsyncClient`.

    Args:
        target: Where to.
        prompts: Everything that may be sent.
        settle: Called once per request after its end.
        timeout_s: Limit per request.
        transport: Given to the client; None for ours.
    """

    name = "httpx"

    def __init__(
        self,
        target: Target,
        prompts: Sequence[Prompt],
        settle: Settle,
        *,
        timeout_s: float,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._target = target
        self._prompts = prompts
        self._settle = settle
        self._timeout_s = timeout_s
        self._transport = transport
        self._histories: dict[int, str] = {}
        self._runner = asyncio.Runner()
        self._client: httpx.AsyncClient | None = None
        self.counters = Counters()
        self.on_tick: Callable[[Counters], None] | None = None

    @property
    def clock_steps(self) -> int:
        transport = self._transport
        if isinstance(transport, StampingTransport):
            return transport.offset.steps
        return 0

    def open_connections(self, count: int) -> None:
        """Make the client; httpx connects when it sends."""
        self._runner.run(self._open())

    async def _open(self) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        address = self._target.address
        tls = self._target.tls()
        self._transport = self._transport or StampingTransport(tls)
        self._client = httpx.AsyncClient(
            base_url=f"{address.scheme}://{address.netloc}{address.base_path}",
            headers={**self._target.headers, "Accept-Encoding": "identity"},
            timeout=httpx.Timeout(self._timeout_s),
            limits=limits,
            verify=tls if tls is not None else True,
            transport=self._transport,
            trust_env=False,
        )

    def run(self, dispatcher: Dispatcher) -> None:
        """Send what `dispatcher` says until nothing is left."""
        self._runner.run(self._run(dispatcher))
        if self.on_tick:
            self.on_tick(self.counters)

    def close(self) -> None:
        if self._client is not None:
            self._runner.run(self._client.aclose())
        self._runner.close()

    async def _run(self, dispatcher: Dispatcher) -> None:
        tasks: set[asyncio.Task[None]] = set()
        while True:
            now = time.monotonic_ns()
            while (start := dispatcher.take(now, self.counters.in_flight)) is not None:
                self.counters.in_flight += 1
                self.counters.most_in_flight = max(
                    self.counters.most_in_flight, self.counters.in_flight
                )
                tasks.add(asyncio.create_task(self._one(dispatcher, *start)))
            if not tasks and dispatcher.is_over:
                return
            if self.on_tick:
                self.on_tick(self.counters)
            tasks = await self._wait(tasks, dispatcher.due_ns(self.counters.in_flight))

    async def _wait(
        self, tasks: set[asyncio.Task[None]], due_ns: int | None
    ) -> set[asyncio.Task[None]]:
        limit_ns = TICK_NS
        if due_ns is not None:
            limit_ns = max(min(limit_ns, due_ns - time.monotonic_ns()), 0)
        if not tasks:
            await asyncio.sleep(limit_ns / NS)
            return tasks
        done, pending = await asyncio.wait(
            tasks, timeout=limit_ns / NS, return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            task.result()
        return pending

    async def _one(self, dispatcher: Dispatcher, intended_ns: int, index: int) -> None:
        prompt = self._prompts[index]
        history = ""
        if prompt.follows is not None:
            history = self._histories.pop(prompt.follows, "")
        exchange = Exchange(index, intended_ns, b"")
        outcome = await self._exchange(exchange, prompt, history)
        exchange.end_ns = time.monotonic_ns()
        self.counters.in_flight -= 1
        outcome, text = self._settle(exchange, outcome)
        self.counters.done += 1
        self.counters.failed += outcome is not Outcome.OK
        if dispatcher.has_followers(index):
            self._histories[index] = history + prompt.text + text
        dispatcher.finished(index, exchange.end_ns, is_ok=outcome is Outcome.OK)

    async def _exchange(
        self, exchange: Exchange, prompt: Prompt, history: str
    ) -> Outcome:
        assert self._client is not None
        request = self._client.build_request(
            "POST",
            self._target.endpoint.lstrip("/"),
            json=request_body(self._target, prompt, history),
            headers={"X-Request-Id": f"pd-{exchange.index}"},
            extensions={"trace": self._tracer(exchange)},
        )
        exchange.sent_before_ns = exchange.sent_after_ns = time.monotonic_ns()
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._client.send(request, stream=True)
                try:
                    await self._read(exchange, response)
                finally:
                    await response.aclose()
        except TimeoutError:
            exchange.error = f"no end within {self._timeout_s:g} s"
            return Outcome.TIMEOUT
        except httpx.HTTPError as error:
            exchange.error = f"{type(error).__name__}: {error}"
            return next(out for kind, out in _FAILURES if isinstance(error, kind))
        return Outcome.OK

    def _tracer(self, exchange: Exchange) -> Callable[..., Any]:
        """Connect and send times, from httpx's own trace events."""

        async def trace(name: str, _: dict[str, Any]) -> None:
            now = time.monotonic_ns()
            if name.endswith("connect_tcp.started"):
                self.counters.connections += 1
                exchange.connections += 1
                exchange.connect_ns = -now
            elif name.endswith("send_request_headers.started"):
                if exchange.connect_ns < 0:
                    exchange.connect_ns += now
                exchange.sent_before_ns = now
            elif name.endswith("send_request_body.complete"):
                exchange.sent_after_ns = now

        return trace

    async def _read(self, exchange: Exchange, response: httpx.Response) -> None:
        exchange.head_ns = time.monotonic_ns()
        kind = response.headers.get("content-type", "")
        exchange.head = Head(
            status=response.status_code,
            framing=Framing.CLOSE,  # httpx has taken the framing off and checked it
            length=0,
            size=0,
            keeps_open=True,
            is_event_stream="text/event-stream" in kind,
        )
        arrived = response.extensions.get("arrived")
        async for data in response.aiter_raw():
            exchange.raw += data
            kernel_ns, user_ns = arrived() if arrived else (0, time.monotonic_ns())
            exchange.reads.add(kernel_ns, user_ns, len(exchange.raw))
