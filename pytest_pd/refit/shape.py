"""Plain data that planner and workers share: tensor kinds, rank grids, a job's plan.

Standard library only: a worker runs in an environment that need not have pydantic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Sharding = Literal["replicated", "tp", "etp"]


@dataclass(frozen=True, slots=True)
class TensorKind:
    """All tensors of one role: one per layer, or per layer and expert.

    Attributes:
        name: Template with ``{layer}`` and ``{expert}`` where they apply.
        group: Family for summaries, for example ``routed_experts``.
        rows, cols: Global shape of one tensor; a vector has ``cols`` 1.
        sharding: Which axis splits it: none, dense or expert tensor parallel.
        dim: Dimension that is split, 0 or 1.
        blocks: Equal parts along `dim`, each split on its own: a gated ``fc1``
            has two, so a rank holds ``[gate_r; up_r]``.
        layer_start, layer_stop: Layers that have it, half open.
        experts: Experts per layer; 0 if it is no expert tensor.
    """

    name: str
    group: str
    rows: int
    cols: int
    sharding: Sharding
    dim: int
    blocks: int
    layer_start: int
    layer_stop: int
    experts: int

    @property
    def elements(self) -> int:
        """Elements of one tensor."""
        return self.rows * self.cols

    @property
    def count(self) -> int:
        """Tensors of this kind in the model."""
        return (self.layer_stop - self.layer_start) * max(1, self.experts)

    def tensor_name(self, layer: int, expert: int) -> str:
        """Return the global name of one tensor."""
        return self.name.format(layer=layer, expert=expert)


@dataclass(frozen=True, slots=True)
class Grid:
    """Which part of a model each rank of one side holds, in Megatron's order.

    Attributes:
        ranks: Ranks of this side, ``tp * dp * pp``.
        offset: Global rank of the side's rank 0.
        layers: Layers of the model, dealt to stages in contiguous runs.
    """

    tp: int
    ep: int
    etp: int
    pp: int
    ranks: int
    offset: int
    layers: int

    @property
    def stage_ranks(self) -> int:
        return self.ranks // self.pp

    @property
    def dense_replicas(self) -> int:
        return self.stage_ranks // self.tp

    @property
    def expert_replicas(self) -> int:
        return self.stage_ranks // (self.etp * self.ep)

    def holds(self, rank: int) -> bool:
        """Return whether global `rank` belongs to this side."""
        return self.offset <= rank < self.offset + self.ranks

    def stage_of_layer(self, layer: int) -> int:
        return layer * self.pp // self.layers

    def stage(self, rank: int) -> int:
        return (rank - self.offset) // self.stage_ranks

    def parts(self, sharding: Sharding) -> int:
        """Return into how many shards this sharding cuts a tensor."""
        return {"replicated": 1, "tp": self.tp, "etp": self.etp}[sharding]

    def part(self, rank: int, sharding: Sharding) -> int:
        """Return which of those shards global `rank` holds."""
        local = (rank - self.offset) % self.stage_ranks
        return local % self.parts(sharding)

    def expert_group(self, rank: int) -> int:
        """Return the expert-parallel index of global `rank`."""
        return (rank - self.offset) % self.stage_ranks // self.etp % self.ep

    def experts_of(self, rank: int, experts: int) -> range:
        """Return the global ids of the routed experts that `rank` holds."""
        share = experts // self.ep
        start = self.expert_group(rank) * share
        return range(start, start + share)

    def holders(self, stage: int, expert_group: int | None) -> list[int]:
        """Return the global ranks that hold some shard of a tensor, ascending."""
        start = self.offset + stage * self.stage_ranks
        stop = start + self.stage_ranks
        if expert_group is None:
            return list(range(start, stop))
        return [r for r in range(start, stop) if self.expert_group(r) == expert_group]

    def replica(self, rank: int, sharding: Sharding) -> int:
        """Return which copy of a tensor the shard on `rank` belongs to."""
        local = (rank - self.offset) % self.stage_ranks
        if sharding == "etp":
            return local // (self.etp * self.ep)
        return local // self.parts(sharding)
