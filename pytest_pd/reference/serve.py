"""``python -m pytest_pd.reference serve MODEL``: build it all and run it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence

from aiohttp import web

from pytest_pd.errors import SpecError
from pytest_pd.reference import flags, logs
from pytest_pd.reference.engine import Engine, EngineOptions
from pytest_pd.reference.faults import Faults
from pytest_pd.reference.metrics import (
    EngineMetrics,
    Family,
    read_cache_labels,
    read_families,
)
from pytest_pd.reference.model import Model
from pytest_pd.reference.protocol import Context
from pytest_pd.reference.server import VERSION, Front, Server
from pytest_pd.reference.settings import Settings, read_settings
from pytest_pd.reference.shared_storage import leave_old_kv
from pytest_pd.reference.stats import EngineStats, log_stats
from pytest_pd.reference.tokenizer import Tokenizer

_log = logging.getLogger("vllm.entry")

_GRACE_S = 0.3
"""Seconds that answers under way may take after SIGTERM."""


def run(argv: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code."""
    settings = read_settings(flags.parse(argv), os.environ)
    clock = logs.Clock()
    logs.configure(clock)
    _log.info("version %s, model %s", VERSION, settings.model_tag)
    main = _idle(settings) if settings.parallel.headless else _serve(settings, clock)
    asyncio.run(main)
    return 0


async def _idle(settings: Settings) -> None:
    """Be a headless process: nothing but there until told to stop."""
    stop = _stop_signal()
    kind = "headless multiproc executor" if settings.parallel.follower else "headless"
    _log.info("Launching vLLM (v%s) %s.", VERSION, kind)
    await stop.wait()


async def _serve(settings: Settings, clock: logs.Clock) -> None:
    sys.setswitchinterval(1e-4)  # an engine's thread must not hold up the stream
    stop = _stop_signal()
    late_s = await _strike_start(Faults(settings.faults), settings)
    engines, server = _build(settings, clock)
    runner = web.AppRunner(
        server.application(),
        handler_cancellation=True,
        access_log_class=logs.AccessLog,
        access_log=logging.getLogger("uvicorn") if settings.access_log else None,
        shutdown_timeout=_GRACE_S,
    )
    await runner.setup()
    try:
        await _listen(runner, settings)
        _tell_ready(settings)
        asyncio.get_running_loop().call_later(late_s, _start_all, engines)
        stats = asyncio.create_task(_log_stats(engines))
        await stop.wait()
        stats.cancel()
    finally:
        for engine in engines:
            engine.stop()
        await runner.cleanup()


async def _strike_start(faults: Faults, settings: Settings) -> float:
    """Do what faults at start ask for; return how late the engines start."""
    late_s = 0.0
    for fault in faults.fire("start"):
        match fault.kind:
            case "crash_at_start":
                os._exit(int(fault.options["code"]))
            case "slow_start":
                await asyncio.sleep(float(fault.options["seconds"]))
            case "ready_lie":
                late_s = float(fault.options["seconds"])
            case "old_kv" if settings.kv_transfer is not None:
                leave_old_kv(settings.kv_transfer)
    return late_s


async def _log_stats(engines: Sequence[Engine]) -> None:
    told = [EngineStats(engine.books, engine.options.rank) for engine in engines]
    seconds = float(os.environ.get("VLLM_LOG_STATS_INTERVAL", "10"))
    await log_stats(told, interval_s=seconds)


def _die() -> None:
    """End the process as vLLM does when its engine is dead."""
    logging.shutdown()
    os._exit(1)


def _start_all(engines: Sequence[Engine]) -> None:
    for engine in engines:
        engine.start()


async def _listen(runner: web.AppRunner, settings: Settings) -> None:
    site = web.TCPSite(runner, settings.host, settings.port, backlog=2048)
    try:
        await site.start()
    except OSError as exc:
        raise SpecError(
            f"Cannot listen on {settings.host}:{settings.port}: {exc.strerror}.",
            hint="choose another --port, or stop what listens there",
        ) from exc


def _tell_ready(settings: Settings) -> None:
    where = f"http://{settings.host}:{settings.port}"
    _log.info("Starting vLLM server on %s", where)
    uvicorn = logging.getLogger("uvicorn")
    uvicorn.info("Started server process [%d]", os.getpid())
    uvicorn.info("Waiting for application startup.")
    uvicorn.info("Application startup complete.")


def _build(settings: Settings, clock: logs.Clock) -> tuple[list[Engine], Server]:
    """Return engines and the server in front of them."""
    started = time.perf_counter()
    model = Model.load(settings.folder)
    tokenizer = Tokenizer.load(settings.folder)
    families = read_families(settings.max_model_len)
    if settings.kv_transfer is None or not settings.kv_transfer.pulls:
        families = tuple(f for f in families if not f.name.startswith("vllm:nixl"))
    context = Context(settings.names, tokenizer, settings.max_model_len)
    server = Server(_front(settings, context, clock), families)
    engines = []
    for rank in settings.parallel.ranks:
        faults = Faults(settings.faults)
        metrics = _metrics(families, settings, rank)
        engine = Engine(
            model,
            tokenizer,
            _options(settings, rank),
            faults=faults,
            metrics=metrics,
            deliver=server.deliver,
            died=_die,
        )
        server.add(engine, faults)
        engines.append(engine)
    took = time.perf_counter() - started
    _log.info("init engine (profile, create kv cache, warmup model) took %.2f s", took)
    return engines, server


def _metrics(
    families: Sequence[Family], settings: Settings, rank: int
) -> EngineMetrics:
    name = settings.names[0]
    return EngineMetrics(families, engine=rank, model_name=name)


def _options(settings: Settings, rank: int) -> EngineOptions:
    return EngineOptions(
        rank=rank,
        shape=settings.shape,
        dtype=settings.dtype,
        blocks=settings.blocks,
        block_size=settings.block_size,
        max_model_len=settings.max_model_len,
        max_seqs=settings.max_seqs,
        max_batched_tokens=settings.max_batched_tokens,
        caching=settings.caching,
        kv_transfer=settings.kv_transfer,
        env=os.environ,
        seed=settings.seed + rank,
    )


def _front(settings: Settings, context: Context, clock: logs.Clock) -> Front:
    tokens = settings.blocks * settings.block_size
    labels = read_cache_labels() | {
        "block_size": str(settings.block_size),
        "effective_attention_block_size": str(settings.block_size),
        "cache_dtype": settings.dtype,
        "enable_prefix_caching": str(settings.caching),
        "num_gpu_blocks": str(settings.blocks),
        "kv_cache_size_tokens": str(tokens),
        "kv_cache_max_concurrency": str(tokens / settings.max_model_len),
        "kv_cache_memory_bytes": str(tokens * settings.shape.bytes_per_token),
    }
    return Front(
        context=context,
        model_root=settings.model_tag,
        api_key=settings.api_key,
        details=settings.details,
        cache_labels=labels,
        allow_faults=settings.allow_faults,
        started_s=clock.now_s(),
        clock=clock,
    )


def _stop_signal() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
