"""Cells down to single copies: which slice of which tensor goes from rank to rank."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import lcm

from pytest_pd.refit.cells import CellKey
from pytest_pd.refit.choice import Chooser
from pytest_pd.refit.shape import Grid, TensorKind


@dataclass(frozen=True, slots=True)
class Shard:
    """The part of one tensor that one rank holds.

    Attributes:
        index: Number of the tensor in the model; the same on every rank.
        part, parts: It is shard `part` of `parts` along the kind's dimension.
    """

    index: int
    name: str
    kind: TensorKind
    part: int
    parts: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of this shard."""
        if self.kind.dim == 0:
            return self.kind.rows // self.parts, self.kind.cols
        return self.kind.rows, self.kind.cols // self.parts

    @property
    def elements(self) -> int:
        return self.kind.elements // self.parts


@dataclass(frozen=True, slots=True)
class Transfer:
    """One contiguous run along a tensor's split dimension, from rank to rank.

    Attributes:
        task: Unique in the refit and the same on both ranks; ascending order is
            the order in which both post it.
        read, write: Numbers of the tensor read and of the tensor written.
        dim: Dimension along which the three lengths below count.
        read_start, write_start: Where in the local shards the run begins.
    """

    task: int
    source: int
    target: int
    read: int
    write: int
    dim: int
    read_start: int
    write_start: int
    length: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of one tensor between two shard indices."""

    parts: tuple[int, int]
    read_start: int
    write_start: int
    length: int


def tensors(kinds: Sequence[TensorKind]) -> Iterator[tuple[int, TensorKind, int, int]]:
    """Yield (number, kind, layer, expert) of every tensor of the model."""
    number = 0
    for kind in kinds:
        for layer in range(kind.layer_start, kind.layer_stop):
            for expert in range(max(1, kind.experts)):
                yield number, kind, layer, expert
                number += 1


def shards(kinds: Sequence[TensorKind], grid: Grid, rank: int) -> Iterator[Shard]:
    """Yield what global `rank` holds on the side of `grid`, ascending."""
    if not grid.holds(rank):
        return
    stage = grid.stage(rank)
    for number, kind, layer, expert in tensors(kinds):
        if grid.stage_of_layer(layer) != stage:
            continue
        if kind.experts and expert not in grid.experts_of(rank, kind.experts):
            continue
        name = kind.tensor_name(layer, expert)
        parts = grid.parts(kind.sharding)
        yield Shard(number, name, kind, grid.part(rank, kind.sharding), parts)


@lru_cache(maxsize=1024)
def pieces(kind: TensorKind, source_parts: int, target_parts: int) -> tuple[Piece, ...]:
    """Return the runs that turn one tensor's source shards into target shards.

    Each block is split on its own, so the shards of a gated ``fc1`` hold a run
    of the gate and a run of the up projection.
    """
    n = lcm(source_parts, target_parts)
    size = (kind.rows if kind.dim == 0 else kind.cols) // kind.blocks
    unit, read_size, write_size = size // n, size // source_parts, size // target_parts
    out = []
    for block in range(kind.blocks):
        for u in range(n):
            a, b = u * source_parts // n, u * target_parts // n
            read = block * read_size + u * unit - a * read_size
            write = block * write_size + u * unit - b * write_size
            out.append(Piece((a, b), read, write, unit))
    return tuple(out)


@dataclass(frozen=True, slots=True)
class _Run:
    source: int
    target: int
    at: int
    piece: Piece


_Where = tuple[tuple[int, int], tuple[int, int] | None]


class Planner:
    """Lists the transfers of one refit.

    Args:
        kinds: Every kind of tensor of the model.
        source, target: Rank grids in global ranks.
        choose: Policy among several copies.
    """

    def __init__(
        self,
        kinds: Sequence[TensorKind],
        source: Grid,
        target: Grid,
        choose: Chooser,
    ) -> None:
        self.kinds = tuple(kinds)
        self.source = source
        self.target = target
        self._choose = choose
        self._world = max(side.offset + side.ranks for side in (source, target))
        self._runs = max(len(self._pieces(kind)) for kind in self.kinds)
        self._cache: dict[Hashable, list[_Run]] = {}

    def transfers(self, rank: int | None = None) -> Iterator[Transfer]:
        """Yield all transfers, or those that touch `rank`, by ascending task."""
        for number, kind, layer, expert in tensors(self.kinds):
            for run in self._runs_of(kind, self._where(kind, layer, expert), rank):
                piece = run.piece
                yield Transfer(
                    task=(number * self._world + run.target) * self._runs + run.at,
                    source=run.source,
                    target=run.target,
                    read=number,
                    write=number,
                    dim=kind.dim,
                    read_start=piece.read_start,
                    write_start=piece.write_start,
                    length=piece.length,
                )

    def _pieces(self, kind: TensorKind) -> tuple[Piece, ...]:
        return pieces(
            kind, self.source.parts(kind.sharding), self.target.parts(kind.sharding)
        )

    def _where(self, kind: TensorKind, layer: int, expert: int) -> _Where:
        stages = (self.source.stage_of_layer(layer), self.target.stage_of_layer(layer))
        if not kind.experts:
            return stages, None
        groups = (
            expert * self.source.ep // kind.experts,
            expert * self.target.ep // kind.experts,
        )
        return stages, groups

    def _runs_of(self, kind: TensorKind, where: _Where, only: int | None) -> list[_Run]:
        # Tensors of one kind in one place have the same runs: 384 experts share a few.
        key = (kind, where, only)
        if key not in self._cache:
            self._cache[key] = [
                run
                for run in self._make_runs(kind, where)
                if only is None or only in (run.source, run.target)
            ]
        return self._cache[key]

    def _make_runs(self, kind: TensorKind, where: _Where) -> Iterator[_Run]:
        stages, groups = where
        for taker in self.target.holders(stages[1], groups and groups[1]):
            part = self.target.part(taker, kind.sharding)
            for at, piece in enumerate(self._pieces(kind)):
                if piece.parts[1] == part:
                    key = CellKey(kind.sharding, stages, groups, piece.parts)
                    giver = self._choose(key, self.source, taker)
                    yield _Run(giver, taker, at, piece)


def elements_of(transfer: Transfer, shard: Shard) -> int:
    """Return the elements that `transfer` writes into `shard`."""
    rows, cols = shard.shape
    return transfer.length * (cols if transfer.dim == 0 else rows)


def gaps(transfers: Sequence[Transfer], shard: Shard) -> str:
    """Return how `transfers` fail to write each element of `shard` once, or nothing."""
    at = 0
    for each in sorted(transfers, key=lambda t: t.write_start):
        if each.write_start != at:
            what = "twice" if each.write_start < at else "never"
            low, high = sorted((each.write_start, at))
            return f"{shard.name}: {low}..{high} along dim {each.dim} is written {what}"
        at += each.length
    size = shard.shape[shard.kind.dim]
    if at < size:
        return f"{shard.name}: {at}..{size} along dim {shard.kind.dim} is written never"
    return ""
