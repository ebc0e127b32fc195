"""A proxy between fake workers, all in the test's own event loop."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web
from multidict import CIMultiDictProxy

from pytest_pd.proxy.ask import Transfer
from pytest_pd.proxy.options import ProxyOptions
from pytest_pd.proxy.server import Proxy, serving
from pytest_pd.proxy.worker import Address, Health

DEADLINE_S = 60.0


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run ``async def`` tests of this folder in an event loop of their own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}

    async def bounded():
        async with asyncio.timeout(DEADLINE_S):
            await pyfuncitem.obj(**arguments)

    asyncio.run(bounded())
    return True


def event(text):
    """Return the server-sent event of one token."""
    choice = {"index": 0, "text": text, "finish_reason": None}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Seen:
    """A request as it reached a worker."""

    path: str
    headers: CIMultiDictProxy[str]
    raw: bytes

    @property
    def body(self):
        return json.loads(self.raw)


@dataclass
class FakeWorker:
    """Answers as told, and remembers what it was asked.

    Attributes:
        pieces: HTTP chunks of a streamed answer.
        answer: JSON of a whole answer.
        status: Status of every answer.
        behave: Replaces the answering altogether.
        healthy: What /health says.
        gone: Set when a client left in the middle of a request.
    """

    pieces: list[bytes] = field(
        default_factory=lambda: [event("a"), event("b"), event("c"), DONE]
    )
    answer: dict = field(default_factory=lambda: {"choices": [{"text": "abc"}]})
    status: int = 200
    behave: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    healthy: bool = True
    seen: list[Seen] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    runner: web.AppRunner | None = None

    async def die(self):
        """Close the port and every connection, as a killed process would."""
        await self.runner.cleanup()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, request):
        raw = await request.read()
        self.seen.append(Seen(request.path, request.headers, raw))
        try:
            if self.behave is not None:
                return await self.behave(request)
            return await self._answer(request, raw)
        except asyncio.CancelledError:
            self.gone.set()
            raise

    async def _answer(self, request, raw):
        if self.status == 200 and request.method == "POST":
            try:
                streams = json.loads(raw).get("stream")
            except ValueError:
                streams = False
            if streams:
                return await stream(request, self.pieces)
        return web.json_response(self.answer, status=self.status)

    async def health(self, request):
        return web.Response(status=200 if self.healthy else 503)

    @asynccontextmanager
    async def listening(self):
        app = web.Application(client_max_size=2**30)
        app.router.add_get("/health", self.health)
        app.router.add_route("*", "/{path:.*}", self.serve)
        runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await runner.setup()
        self.runner = runner
        try:
            await web.TCPSite(runner, "127.0.0.1", self.port).start()
            self.port = runner.addresses[0][1]
            yield self
        finally:
            await runner.cleanup()


async def stream(request, pieces, *, end=True):
    """Send `pieces` as one HTTP chunk each; without `end`, cut the connection."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece)
        await asyncio.sleep(0.005)  # so that chunks travel apart
    if not end:
        request.transport.close()
    return response


@dataclass
class World:
    """A proxy with its workers, and a client of it."""

    proxy: Proxy
    url: str
    client: aiohttp.ClientSession
    prefill: list[FakeWorker]
    decode: list[FakeWorker]

    async def complete(self, path="/v1/completions", headers=None, **body):
        """Send a completion; return status, headers, text."""
        body = {"model": "m", "prompt": "hello", "max_tokens": 4, **body}
        async with self.client.post(
            self.url + path, json=body, headers=headers
        ) as response:
            return response.status, response.headers, await response.text()

    async def get(self, path):
        """Return status and text of a GET."""
        async with self.client.get(self.url + path) as response:
            return response.status, await response.text()

    async def metric(self, series):
        """Return the value of one series of /metrics, None where there is none."""
        _, text = await self.get("/metrics")
        found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
        return None if found is None else float(found[1])


async def until(condition):
    """Wait until `condition()` holds; the test's deadline bounds it."""
    while not condition():  # noqa: ASYNC110 - anything may be waited for
        await asyncio.sleep(0.005)


@asynccontextmanager
async def world(prefill=1, decode=1, ranks=(None,), **options) -> AsyncIterator[World]:
    """Yield a world; `prefill`, `decode` are workers or how many of them.

    Workers are probed once at the start and, unless `health_interval_s` is given,
    practically never again.
    """
    async with AsyncExitStack() as stack:
        roles = []
        for given in (prefill, decode):
            fakes = [FakeWorker() for _ in range(given)] if given in range(9) else given
            roles.append(
                [await stack.enter_async_context(f.listening()) for f in fakes]
            )
        addresses = [
            tuple(Address(fake.url, rank) for fake in fakes for rank in ranks)
            for fakes in roles
        ]
        settings = {"health_interval_s": 3600.0, "drain_timeout_s": 0.1, **options}
        settings["transfer"] = Transfer(settings.get("transfer", "auto"))
        proxy, port = await stack.enter_async_context(
            serving(ProxyOptions(*addresses, port=0, **settings))
        )
        await until(lambda: all(w.health is not Health.UNKNOWN for w in proxy.workers))
        client = await stack.enter_async_context(aiohttp.ClientSession())
        yield World(proxy, f"http://127.0.0.1:{port}", client, *roles)


@dataclass(frozen=True)
class Tools:
    """What tests of this folder need (conftest modules cannot be imported)."""

    world = staticmethod(world)
    until = staticmethod(until)
    stream = staticmethod(stream)
    event = staticmethod(event)
    FakeWorker = FakeWorker
    DONE = DONE


@pytest.fixture
def pd():
    """Return the tools: a world of fake workers around a proxy."""
    return Tools()
