"""A proxy put together and served until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from aiohttp import web

from pytest_pd.errors import ProvisionError
from pytest_pd.proxy.fault import FaultTable
from pytest_pd.proxy.flow import Flow
from pytest_pd.proxy.health import Prober
from pytest_pd.proxy.limit import Admission, TokenBucket
from pytest_pd.proxy.metrics import ROUTES, Metrics
from pytest_pd.proxy.options import ProxyOptions
from pytest_pd.proxy.pages import Pages
from pytest_pd.proxy.policy import make_policy
from pytest_pd.proxy.pool import Pool
from pytest_pd.proxy.replies import error_answer
from pytest_pd.proxy.stage import Stage
from pytest_pd.proxy.upstream import Upstream
from pytest_pd.proxy.worker import Role, Worker

log = logging.getLogger("pytest_pd.proxy")

_PASSED_ON = ("/v1/models", "/tokenize", "/detokenize", "/version")


@dataclass(frozen=True, slots=True)
class Proxy:
    """The parts of a running proxy, for its server and for tests."""

    options: ProxyOptions
    pools: dict[Role, Pool]
    upstream: Upstream
    metrics: Metrics
    faults: FaultTable
    flow: Flow
    pages: Pages

    @property
    def workers(self) -> list[Worker]:
        """Return every worker of every role."""
        return [worker for pool in self.pools.values() for worker in pool.workers]


def make_proxy(options: ProxyOptions) -> Proxy:
    """Put a proxy together; call it inside a running event loop."""
    metrics = Metrics()
    pools = _pools(options)
    upstream = Upstream(
        api_key=options.api_key,
        connect_timeout_s=options.connect_timeout_s,
        idle_timeout_s=options.idle_timeout_s,
    )
    faults = FaultTable(options.faults, on_fault=metrics.faults.add)
    admission = Admission(
        options.max_concurrent, options.max_queue, options.queue_timeout_s
    )
    metrics.watch(
        pools.values(), active=lambda: admission.active, queued=lambda: admission.depth
    )
    stages = {
        role: Stage(
            pool,
            upstream,
            metrics,
            options.policy,
            options.retries,
            options.failure_threshold,
        )
        for role, pool in pools.items()
    }
    flow = Flow(
        options.transfer,
        stages[Role.PREFILL],
        stages[Role.DECODE],
        TokenBucket(
            options.rate_limit_rps, options.rate_burst or options.rate_limit_rps
        ),
        admission,
        metrics,
        faults,
    )
    pages = Pages(pools, upstream, metrics, faults)
    return Proxy(options, pools, upstream, metrics, faults, flow, pages)


def _pools(options: ProxyOptions) -> dict[Role, Pool]:
    prefill = tuple(Worker(Role.PREFILL, address) for address in options.prefill)
    decode = tuple(Worker(Role.DECODE, address) for address in options.decode)
    # Every prefill worker is to meet every decode worker.
    turn = math.lcm(len(prefill), len(decode))
    return {
        Role.PREFILL: Pool(Role.PREFILL, prefill, make_policy(options.policy, prefill)),
        Role.DECODE: Pool(
            Role.DECODE, decode, make_policy(options.policy, decode, turn=turn)
        ),
    }


def make_app(proxy: Proxy) -> web.Application:
    """Return the routes of a proxy."""
    app = web.Application(client_max_size=proxy.options.max_body_bytes)
    pages = proxy.pages
    for route in ROUTES:
        app.router.add_post(route, proxy.flow.handle)
    for path in _PASSED_ON:
        app.router.add_route("*", path, pages.pass_on)
    app.router.add_get("/health", pages.health)
    app.router.add_get("/liveness", pages.liveness)
    app.router.add_get("/readiness", pages.readiness)
    app.router.add_get("/list_workers", pages.workers)
    app.router.add_get("/workers", pages.workers)
    app.router.add_get("/metrics", pages.show_metrics)
    if proxy.options.allow_faults:
        app.router.add_get("/pd/faults", pages.show_faults)
        app.router.add_post("/pd/faults", pages.set_faults)
        app.router.add_delete("/pd/faults", pages.clear_faults)
    if any(fault.kind == "status_lies" for fault in proxy.faults.faults):
        app.middlewares.append(_all_is_well)
    app.middlewares.append(_errors_as_json)
    return app


@web.middleware
async def _all_is_well(
    request: web.Request,
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> web.StreamResponse:
    """Commit the fault ``status_lies``."""
    response = await handler(request)
    if not response.prepared and response.status >= 400:
        response.set_status(200)
    return response


@web.middleware
async def _errors_as_json(
    request: web.Request,
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> web.StreamResponse:
    """Answer 404, 405 and 413 in the shape that OpenAI clients read."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        answer = error_answer(
            error.status,
            f"{request.method} {request.path}: {error.reason}.",
            kind="invalid_request_error",
            code=str(error.status),
        )
        return web.Response(
            status=error.status, body=answer.body, headers=answer.headers
        )


@asynccontextmanager
async def serving(options: ProxyOptions) -> AsyncIterator[tuple[Proxy, int]]:
    """Serve a proxy; yield it with its port (``port=0`` takes a free one).

    Raises:
        ProvisionError: the address cannot be listened on.
    """
    proxy = make_proxy(options)
    runner = web.AppRunner(
        make_app(proxy),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=options.drain_timeout_s,
        keepalive_timeout=75.0,
    )
    prober = Prober(
        proxy.upstream,
        interval_s=options.health_interval_s,
        timeout_s=options.health_timeout_s,
        threshold=options.failure_threshold,
    )
    probing = None
    try:
        await runner.setup()
        port = await _listen(runner, options)
        probing = asyncio.create_task(prober.run(proxy.workers))
        yield proxy, port
    finally:
        if probing is not None:
            probing.cancel()
            with suppress(asyncio.CancelledError):
                await probing
        await runner.cleanup()
        await proxy.upstream.close()


async def _listen(runner: web.AppRunner, options: ProxyOptions) -> int:
    site = web.TCPSite(runner, options.host, options.port, backlog=1024)
    try:
        await site.start()
    except OSError as error:
        raise ProvisionError(
            f"The proxy cannot listen on {options.host}:{options.port}: "
            f"{error.strerror or error}.",
            hint="choose another --port; 0 takes a free one",
        ) from error
    return int(runner.addresses[0][1])


async def serve(options: ProxyOptions) -> None:
    """Serve until SIGINT or SIGTERM; requests in flight have `drain_timeout_s`."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with serving(options) as (proxy, port):
        gc.freeze()  # what is here now stays: a full collection need not look at it
        log.info(
            "proxy ready on http://%s:%d policy=%s transfer=%s loop=%s "
            "prefill=%s decode=%s",
            options.host,
            port,
            options.policy,
            options.transfer,
            type(loop).__module__.partition(".")[0],
            ",".join(w.name for w in proxy.pools[Role.PREFILL].workers),
            ",".join(w.name for w in proxy.pools[Role.DECODE].workers),
        )
        await stop.wait()
        log.info("proxy stops: new requests are refused, those in flight may end")
