"""What the keys of a pool are called on vLLM's command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise

from pytest_pd.errors import SpecError
from pytest_pd.spec.pool import PoolSpec
from pytest_pd.spec.topology import TopologySpec

CPU_BLOCK_TOKENS = 128
COMPUTE_TYPES = ("float32", "float16", "bfloat16")
"""Precisions that ``--dtype`` knows; others are a matter of the weights."""


def words(topology: TopologySpec, pool: PoolSpec) -> Iterator[str]:
    """Yield flags for everything but parallelism, KV hand-over and `args`."""
    if topology.model.tokenizer:
        yield from ("--tokenizer", topology.model.tokenizer)
    if topology.model.precision in COMPUTE_TYPES:
        yield from ("--dtype", topology.model.precision)
    if topology.model.revision:
        yield from ("--revision", topology.model.revision)
    if topology.engine.block_tokens:
        yield from ("--block-size", str(topology.engine.block_tokens))
    if pool.kv_cache_dtype:
        yield from ("--kv-cache-dtype", pool.kv_cache_dtype)
    if pool.prefix_caching is not None:
        yield f"--{'' if pool.prefix_caching else 'no-'}enable-prefix-caching"
    yield from _json_words(pool)
    if pool.moe and pool.moe.all2all:
        yield from ("--all2all-backend", pool.moe.all2all)


def _json_words(pool: PoolSpec) -> Iterator[str]:
    if pool.speculative:
        config = {
            "method": pool.speculative.method,
            "num_speculative_tokens": pool.speculative.num_tokens,
        }
        if pool.speculative.model:
            config["model"] = pool.speculative.model
        yield from ("--speculative-config", json.dumps(config))
    if pool.kv_events:
        events = {
            "enable_kv_cache_events": True,
            "publisher": pool.kv_events.publisher,
            "topic": pool.kv_events.topic,
            **pool.kv_events.config,
        }
        yield from ("--kv-events-config", json.dumps(events))


def check(pool: PoolSpec, where: str) -> None:
    """Refuse keys that have no counterpart here: nothing is dropped in silence.

    Raises:
        SpecError: names the key and the way round.
    """
    unsaid = {
        "config": bool(pool.config),
        "kv_offload": pool.kv_offload is not None,
        "moe.backend": bool(pool.moe and pool.moe.backend),
        "moe.eplb_slots": bool(pool.moe and pool.moe.eplb_slots),
        "speculative.forced_acceptance": bool(
            pool.speculative and pool.speculative.forced_acceptance
        ),
    }
    for key, given in unsaid.items():
        if given:
            raise SpecError(
                f"{where}.{key} is not translated for vLLM.",
                hint=f"write the flags of your release into {where}.args",
            )


def block_tokens(topology: TopologySpec, *, cpu: bool) -> int | None:
    """Return tokens per KV block: said by key, by flag, or the default on CPUs.

    On GPUs the kind of attention decides: 16 for most, 64 or 128 for some of MLA.
    """
    if topology.engine.block_tokens:
        return topology.engine.block_tokens
    pool = topology.decode or topology.aggregated
    args = [*topology.engine.args, *(pool.args if pool else ())]
    for word, following in pairwise([*args, ""]):
        flag, _, value = word.partition("=")
        if flag == "--block-size":
            return int(value or following)
    return CPU_BLOCK_TOKENS if cpu else None
