"""Cut the model into cells: sets of elements that lie on the same ranks on both sides.

Every question about bytes (what a GPU needs, what its node lacks, who sends what) is
then a sum over a few hundred cells, whatever the size of the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import lcm

import numpy as np
import numpy.typing as npt

from pytest_pd.refit.shape import Grid, Sharding, TensorKind

BoolTable = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CellKey:
    """What the elements of a cell have in common.

    Attributes:
        stages: Pipeline stage of the source and of the target.
        expert_groups: Expert-parallel index on both sides; None if dense.
        parts: Shard index on both sides.
    """

    sharding: Sharding
    stages: tuple[int, int]
    expert_groups: tuple[int, int] | None
    parts: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells of one refit.

    Attributes:
        keys: n keys.
        elements: Shape (n,): parameters in each cell, counted once.
        pieces: Shape (n,): contiguous pieces, one message each.
        staged: Shape (n,): elements that arrive in a buffer first, because
            their place in the target tensor is not contiguous.
        held, needed: Shape (n, ranks): which rank has it, which must get it.
    """

    keys: tuple[CellKey, ...]
    elements: Ints
    pieces: Ints
    staged: Ints
    held: BoolTable
    needed: BoolTable

    @property
    def ranks(self) -> int:
        return int(self.held.shape[1])


@dataclass(slots=True)
class _Sums:
    elements: int = 0
    pieces: int = 0
    staged: int = 0


def part_units(source_parts: int, target_parts: int) -> list[tuple[int, int]]:
    """Return (source shard, target shard) of each unit of the common split."""
    n = lcm(source_parts, target_parts)
    return [(u * source_parts // n, u * target_parts // n) for u in range(n)]


def _layer_stages(
    kind: TensorKind, source: Grid, target: Grid
) -> Counter[tuple[int, int]]:
    layers = range(kind.layer_start, kind.layer_stop)
    return Counter((source.stage_of_layer(i), target.stage_of_layer(i)) for i in layers)


def _expert_groups(
    kind: TensorKind, source: Grid, target: Grid
) -> Counter[tuple[int, int] | None]:
    if not kind.experts:
        return Counter([None])
    groups = part_units(source.ep, target.ep)
    share = kind.experts // len(groups)
    return Counter({g: n * share for g, n in Counter(groups).items()})


def _cells_of(
    kind: TensorKind, source: Grid, target: Grid
) -> Iterable[tuple[CellKey, _Sums]]:
    units = part_units(source.parts(kind.sharding), target.parts(kind.sharding))
    per_target = len(units) // target.parts(kind.sharding)
    # Columns of a row-major matrix are contiguous only if they are all of it.
    scattered = kind.dim == 1 and per_target > 1
    for stages, layers in _layer_stages(kind, source, target).items():
        for groups, experts in _expert_groups(kind, source, target).items():
            tensors = layers * experts
            elements = kind.elements // len(units) * tensors
            for parts in units:
                yield (
                    CellKey(kind.sharding, stages, groups, parts),
                    _Sums(elements, kind.blocks * tensors, elements * scattered),
                )


def _table(keys: Sequence[CellKey], grid: Grid, side: int, ranks: int) -> BoolTable:
    table = np.zeros((len(keys), ranks), dtype=np.bool_)
    for row, key in enumerate(keys):
        group = None if key.expert_groups is None else key.expert_groups[side]
        for rank in grid.holders(key.stages[side], group):
            table[row, rank] = grid.part(rank, key.sharding) == key.parts[side]
    return table


def make_cells(kinds: Sequence[TensorKind], source: Grid, target: Grid) -> Cells:
    """Return the cells of a refit of `kinds` from `source` to `target`."""
    sums: dict[CellKey, _Sums] = {}
    for kind in kinds:
        for key, more in _cells_of(kind, source, target):
            total = sums.setdefault(key, _Sums())
            total.elements += more.elements
            total.pieces += more.pieces
            total.staged += more.staged
    keys = tuple(sums)
    ranks = max(source.offset + source.ranks, target.offset + target.ranks)
    values = sums.values()
    return Cells(
        keys=keys,
        elements=np.array([v.elements for v in values], dtype=np.int64),
        pieces=np.array([v.pieces for v in values], dtype=np.int64),
        staged=np.array([v.staged for v in values], dtype=np.int64),
        held=_table(keys, source, 0, ranks),
        needed=_table(keys, target, 1, ranks),
    )
