"""Megatron-Core's own planner, fed with metadata instead of modules.

Its schedule needs no process group and no GPU (megatron-core 0.19.2:
``index_metadata_rosters`` and ``build_plan_from_rosters``), so that the layout of
any model can be planned on one CPU.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from pytest_pd.refit.job import Job
from pytest_pd.refit.shape import Grid, TensorKind
from pytest_pd.refit.transfer import Shard, Transfer, shards

PACKAGE = "megatron.core.resharding"
SOURCE_VARIABLE = "PD_MEGATRON_SRC"
"""Root of a megatron-core source tree, to use its planner without its requirements."""


def load_planner() -> ModuleType:
    """Import megatron-core's planner.

    ``megatron.core`` as a whole wants Triton and more; with PD_MEGATRON_SRC only
    the planner's two modules are imported from that tree.
    """
    root = os.environ.get(SOURCE_VARIABLE)
    if root:
        for name in ("megatron", "megatron.core", PACKAGE):
            package = ModuleType(name)
            package.__path__ = [str(Path(root, *name.split(".")))]
            sys.modules.setdefault(name, package)
    return import_module(f"{PACKAGE}.planner")


def _dense_peers(grid: Grid, rank: int) -> tuple[list[int], list[int]]:
    """Return the tensor- and the data-parallel group of `rank`."""
    everyone = grid.holders(grid.stage(rank), None)
    tp = [r for r in everyone if grid.replica(r, "tp") == grid.replica(rank, "tp")]
    dp = [r for r in everyone if grid.part(r, "tp") == grid.part(rank, "tp")]
    return tp, dp


def _expert_peers(grid: Grid, rank: int) -> tuple[list[int], list[int]]:
    """Return the expert-tensor- and the expert-parallel group of `rank`."""
    copy = grid.replica(rank, "etp")
    whole = [
        r
        for r in grid.holders(grid.stage(rank), None)
        if grid.replica(r, "etp") == copy
    ]
    etp = [r for r in whole if grid.expert_group(r) == grid.expert_group(rank)]
    ep = [r for r in whole if grid.part(r, "etp") == grid.part(rank, "etp")]
    return etp, ep


def metadata(
    utils: ModuleType, kinds: Sequence[TensorKind], grid: Grid, rank: int
) -> list[Any]:
    """Return the ``ParameterMetadata`` that a module on `rank` would give."""
    if not grid.holds(rank):
        return []
    tp, dp = _dense_peers(grid, rank)
    etp, ep = _expert_peers(grid, rank)

    def of(shard: Shard) -> Any:
        expert = shard.kind.experts > 0
        rows, cols = shard.shape
        return utils.ParameterMetadata(
            name=shard.name,
            resolved_name=shard.name,
            shape=(rows, cols),
            dtype=torch.bfloat16,
            element_size=2,
            is_tp=shard.kind.sharding == "tp"
            or (shard.kind.sharding == "etp" and len(etp) > 1),
            partition_dim=shard.kind.dim,
            partition_stride=shard.kind.blocks,
            is_ep=expert,
            num_experts=shard.kind.experts or None,
            owner_rank=rank,
            tensor_parallel_group_ranks=etp if expert else tp,
            expert_parallel_group_ranks=ep if expert else None,
            data_parallel_group_ranks=dp,
        )

    return [of(shard) for shard in shards(kinds, grid, rank)]


def rosters(planner: ModuleType, job: Job) -> tuple[Any, Any]:
    """Return what ``build_plan_from_rosters`` takes, for all ranks of a job."""
    utils = import_module(f"{PACKAGE}.utils")
    pairs = [
        (
            metadata(utils, job.kinds, job.source, rank),
            metadata(utils, job.kinds, job.target, rank),
        )
        for rank in range(job.world)
    ]
    rosters: tuple[Any, Any] = planner.index_metadata_rosters(pairs)
    return rosters


def transfers(job: Job, rank: int) -> Iterable[Transfer]:
    """List the transfers that touch `rank`, as megatron-core plans them."""
    planner = load_planner()
    plan = planner.build_plan_from_rosters(*rosters(planner, job), rank)
    held = {s.name: s for s in shards(job.kinds, job.source, rank)}
    held |= {s.name: s for s in shards(job.kinds, job.target, rank)}
    out = [_transfer(op, held[op.param_name], rank) for op in plan.recv_ops]
    out += [
        _transfer(op, held[op.param_name], rank)
        for op in plan.send_ops
        if op.peer_rank != rank
    ]
    return sorted(out, key=lambda t: t.task)


def _transfer(op: Any, shard: Shard, rank: int) -> Transfer:
    dim = next((d for d, s in enumerate(op.my_slice) if s != slice(None)), 0)
    mine, theirs = op.my_slice[dim], op.peer_slice[dim]
    length = (mine.stop or shard.shape[dim]) - (mine.start or 0)
    read, write = (mine, theirs) if op.is_send else (theirs, mine)
    return Transfer(
        task=op.task_id,
        source=rank if op.is_send else op.peer_rank,
        target=op.peer_rank if op.is_send else rank,
        read=shard.index,
        write=shard.index,
        dim=dim,
        read_start=read.start or 0,
        write_start=write.start or 0,
        length=length,
    )
