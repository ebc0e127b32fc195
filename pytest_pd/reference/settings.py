"""What the flags and the environment come to; refuses what cannot be served."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_pd.errors import SpecError
from pytest_pd.reference.connector import KvTransferConfig
from pytest_pd.reference.faults import Fault, parse_faults
from pytest_pd.reference.model import read_config
from pytest_pd.reference.parallel import Parallel, read_parallel
from pytest_pd.reference.shape import ModelShape, resolve_dtype

DEFAULT_BLOCK_SIZE = 16
DEFAULT_KV_TOKENS = 12_288
"""Tokens of the KV cache unless the flags say how many; about 60 MB of memory."""

_LARGEST_KV_TOKENS = 262_144
_DEFAULT_SEQS = 128
_DEFAULT_BATCHED_TOKENS = 2048


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
