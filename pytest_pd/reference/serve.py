"""``python -m pytest_pd.reference serve MODEL [vLLM flags]``: build it all and run it."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from pytest_pd.errors import SpecError
from pytest_pd.reference import flags, logs
from pytest_pd.reference.connector import KvTransferConfig
from pytest_pd.reference.engine import Engine, EngineOptions
from pytest_pd.reference.faults import Fault, Faults, parse_faults
from pytest_pd.reference.metrics import (
    EngineMetrics,
    Family,
    read_cache_labels,
    read_families,
)
from pytest_pd.reference.model import Model, read_config
from pytest_pd.reference.parallel import Parallel, read_parallel
from pytest_pd.reference.protocol import Context
from pytest_pd.reference.server import VERSION, Front, Server
from pytest_pd.reference.shape import ModelShape, resolve_dtype
from pytest_pd.reference.tokenizer import Tokenizer

_log = logging.getLogger("vllm.entry")

DEFAULT_BLOCK_SIZE = 16
DEFAULT_KV_TOKENS = 12_288
"""Tokens of the KV cache unless the flags say how many; about 60 MB of memory."""

_LARGEST_KV_TOKENS = 262_144
_DEFAULT_SEQS = 128
_DEFAULT_BATCHED_TOKENS = 2048
_GRACE_S = 0.3
"""Seconds that answers under way may take after SIGTERM."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the flags and the environment come to."""

    host: str
    port: int
    names: tuple[str, ...]
    model_tag: str
    folder: Path
    api_key: str
    details: bool
    parallel: Parallel
    dtype: str
    shape: ModelShape
    block_size: int
    blocks: int
    max_model_len: int
    max_seqs: int
    max_batched_tokens: int
    caching: bool
    kv_transfer: KvTransferConfig | None
    faults: tuple[Fault, ...]
    allow_faults: bool
    access_log: bool
    seed: int


def read_settings(args: argparse.Namespace, env: Mapping[str, str]) -> Settings:
    """Judge parsed flags.

    Raises:
        SpecError: vLLM would refuse them, or the reference engine has to.
    """
    parallel = read_parallel(args)
    tag = args.model_tag or args.model
    if not tag:
        raise SpecError("No model was named.", hint="serve fixtures/models/tiny")
    stand_in = args.rehearse_model or env.get("PD_REFERENCE_REHEARSE_MODEL")
    folder = Path(stand_in or tag)
    config = read_config(folder)
    dtype = _kv_dtype(args, config, rehearsed=bool(stand_in))
    shape = ModelShape.from_config(config, dtype=dtype)
    longest = int(config["max_position_embeddings"])
    max_model_len = _max_model_len(args, longest, rehearsed=bool(stand_in))
    block_size = args.block_size or DEFAULT_BLOCK_SIZE
    keys = args.api_key or [env.get("VLLM_API_KEY", "")]
    faults = [*args.fault, *filter(None, [env.get("PD_REFERENCE_FAULTS")])]
    return Settings(
        host=args.host or "0.0.0.0",
        port=8000 if args.port is None else args.port,
        names=tuple(args.served_model_name or [tag]),
        model_tag=tag,
        folder=folder,
        api_key=keys[0],
        details=bool(args.enable_prompt_tokens_details),
        parallel=parallel,
        dtype=dtype,
        shape=shape,
        block_size=block_size,
        blocks=_blocks(args, shape, block_size, max_model_len),
        max_model_len=max_model_len,
        max_seqs=args.max_num_seqs or _DEFAULT_SEQS,
        max_batched_tokens=args.max_num_batched_tokens or _DEFAULT_BATCHED_TOKENS,
        caching=args.enable_prefix_caching is not False,
        kv_transfer=_kv_transfer(args, rehearsed=bool(stand_in)),
        faults=parse_faults(faults),
        allow_faults=args.allow_faults,
        access_log=not args.disable_uvicorn_access_log,
        seed=args.seed or 0,
    )


def _kv_dtype(
    args: argparse.Namespace, config: Mapping[str, object], *, rehearsed: bool
) -> str:
    cache = args.kv_cache_dtype or "auto"
    if cache not in ("auto", "float16", "bfloat16") and not rehearsed:
        raise SpecError(
            f"--kv-cache-dtype {cache} is not computed by the reference engine.",
            hint="auto, float16 or bfloat16; or rehearse with --rehearse-model",
        )
    if cache in ("float16", "bfloat16"):
        return str(cache)
    return resolve_dtype(config, args.dtype or "auto")


def _max_model_len(args: argparse.Namespace, longest: int, *, rehearsed: bool) -> int:
    asked = args.max_model_len
    if asked is None or asked == -1:
        return longest
    if asked > longest and not rehearsed:
        raise SpecError(
            f"User-specified max_model_len ({asked}) is greater than the derived "
            f"max_model_len (max_position_embeddings={longest}).",
            hint=f"--max-model-len {longest}",
        )
    return int(min(asked, longest))


def _blocks(
    args: argparse.Namespace, shape: ModelShape, block_size: int, max_model_len: int
) -> int:
    """Return the blocks of the KV cache; at least one longest request must fit."""
    if args.num_gpu_blocks_override:
        blocks = int(args.num_gpu_blocks_override)
    elif args.kv_cache_memory_bytes:
        blocks = args.kv_cache_memory_bytes // shape.bytes_per_block(block_size)
    else:
        blocks = max(DEFAULT_KV_TOKENS, max_model_len) // block_size
    blocks = min(blocks, _LARGEST_KV_TOKENS // block_size)
    if blocks * block_size < max_model_len:
        raise SpecError(
            f"The KV cache of {blocks} blocks holds {blocks * block_size} tokens, less "
            f"than one request of max_model_len {max_model_len}.",
            hint="raise --kv-cache-memory-bytes or lower --max-model-len",
        )
    return int(blocks)


def _kv_transfer(
    args: argparse.Namespace, *, rehearsed: bool
) -> KvTransferConfig | None:
    content = args.kv_transfer_config
    if content is None:
        return None
    if not isinstance(content, Mapping):
        raise SpecError("--kv-transfer-config is a JSON object.")
    return KvTransferConfig.parse(content, rehearsed=rehearsed)


def run(argv: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code."""
    settings = read_settings(flags.parse(argv), os.environ)
    logs.configure()
    _log.info("version %s, model %s", VERSION, settings.model_tag)
    main = _idle(settings) if settings.parallel.headless else _serve(settings)
    asyncio.run(main)
    return 0


async def _idle(settings: Settings) -> None:
    """Be a headless process: nothing but there until told to stop."""
    kind = "headless multiproc executor" if settings.parallel.follower else "headless"
    _log.info("Launching vLLM (v%s) %s.", VERSION, kind)
    await _stop_signal().wait()


async def _serve(settings: Settings) -> None:
    sys.setswitchinterval(1e-4)  # an engine's thread must not hold up the stream
    stop = _stop_signal()
    engines, server = _build(settings)
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
        await stop.wait()
    finally:
        for engine in engines:
            engine.stop()
        await runner.cleanup()


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


def _build(settings: Settings) -> tuple[list[Engine], Server]:
    """Return started engines and the server in front of them."""
    started = time.perf_counter()
    model = Model.load(settings.folder)
    tokenizer = Tokenizer.load(settings.folder)
    families = read_families(settings.max_model_len)
    if settings.kv_transfer is None or not settings.kv_transfer.pulls:
        families = tuple(f for f in families if not f.name.startswith("vllm:nixl"))
    context = Context(settings.names, tokenizer, settings.max_model_len)
    server = Server(_front(settings, context), families)
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
        )
        server.add(engine, faults)
        engines.append(engine)
    for engine in engines:
        engine.start()
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


def _front(settings: Settings, context: Context) -> Front:
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
        started_s=time.time(),
    )


def _stop_signal() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
