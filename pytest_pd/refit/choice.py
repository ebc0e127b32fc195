"""Which of several copies does a target rank read? Two policies, one function each.

``megatron`` repeats the choice of megatron-core 0.19.2, its
`select_src_metadata_balanced`: a rank that holds any shard of a tensor reads from its
own copy, others go round robin over the source's data-parallel groups. ``nearest``
takes its own bytes, then those of its scale-up domain, then spreads the rest.
"""

from __future__ import annotations

from collections.abc import Callable

from pytest_pd.refit.cells import CellKey
from pytest_pd.refit.shape import Grid

Chooser = Callable[[CellKey, Grid, int], int]
"""Cell, source grid, target rank to source rank; all ranks global."""


def _shard_holders(key: CellKey, source: Grid) -> list[int]:
    group = None if key.expert_groups is None else key.expert_groups[0]
    ranks = source.holders(key.stages[0], group)
    return [r for r in ranks if source.part(r, key.sharding) == key.parts[0]]


def megatron(key: CellKey, source: Grid, rank: int) -> int:
    """Return the rank that megatron-core 0.19.2 would read from."""
    group = None if key.expert_groups is None else key.expert_groups[0]
    everyone = source.holders(key.stages[0], group)
    chosen = rank if rank in everyone else _round_robin(everyone, source, rank)
    if key.sharding == "replicated":
        return chosen
    replica = source.replica(chosen, key.sharding)
    return next(
        r
        for r in _shard_holders(key, source)
        if source.replica(r, key.sharding) == replica
    )


def _round_robin(holders: list[int], source: Grid, rank: int) -> int:
    # Ranks with one dense tensor-parallel index form one data-parallel group.
    groups: dict[int, list[int]] = {}
    for holder in holders:
        groups.setdefault(source.part(holder, "tp"), []).append(holder)
    if len(groups) == 1:
        return holders[0]
    members = groups[sorted(groups)[rank % len(groups)]]
    return members[rank // len(groups) % len(members)]


def nearest(domain_ranks: int) -> Chooser:
    """Return the policy that prefers the own GPU, then the own domain.

    Args:
        domain_ranks: Ranks per scale-up domain, filled in rank order.
    """

    def choose(key: CellKey, source: Grid, rank: int) -> int:
        holders = _shard_holders(key, source)
        if rank in holders:
            return rank
        home = rank // domain_ranks
        near = [r for r in holders if r // domain_ranks == home] or holders
        return near[rank % len(near)]

    return choose
