"""How many nodes and processes one replica takes, or why it cannot be."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_pd.errors import SpecError
from pytest_pd.spec.pool import PoolSpec


@dataclass(frozen=True, slots=True)
class Shape:
    """Nodes of one replica, processes on each, GPUs and world ranks of each."""

    nodes: int
    per_node: int
    gpus: int
    ranks: int

    @property
    def processes(self) -> int:
        return self.nodes * self.per_node


def shape_of(pool: PoolSpec, gpus: int, node_gpus: int, label: str) -> Shape:
    """Lay one replica out on nodes of `node_gpus` GPUs.

    Args:
        pool: Settings of the replica.
        gpus: GPUs of the replica, as its engine counts them.
        node_gpus: GPUs of one node; 0 for a cluster without any.

    Raises:
        SpecError: the shape does not fit whole nodes; shows the arithmetic.
    """
    if pool.gpus_per_replica not in (None, gpus):
        raise SpecError(
            f"{label}: gpus_per_replica says {pool.gpus_per_replica}, its shape "
            f"{arithmetic(pool)} needs {gpus}.",
            hint="drop gpus_per_replica or correct tp, pp, dp",
        )
    processes = pool.dp if pool.dp_mode == "external" else 0
    if not node_gpus:
        nodes = pool.nodes_per_replica or 1
        return _split(pool, nodes, processes or nodes, 0, label)
    nodes = pool.nodes_per_replica or -(-gpus // node_gpus)
    if gpus % nodes or gpus // nodes > node_gpus:
        raise SpecError(
            f"{label}: {gpus} GPUs ({arithmetic(pool)}) do not fit {nodes} "
            f"node{'s' if nodes > 1 else ''} of {node_gpus}: "
            f"{gpus} / {nodes} = {gpus / nodes:g} per node.",
            hint="choose a shape that divides evenly over whole nodes",
        )
    return _split(pool, nodes, processes or nodes, gpus, label)


def _split(pool: PoolSpec, nodes: int, processes: int, gpus: int, label: str) -> Shape:
    world = pool.world
    if processes % nodes or gpus % processes:
        raise SpecError(
            f"{label}: {processes} processes of dp_mode {pool.dp_mode} do not divide "
            f"over {nodes} nodes and {gpus} GPUs.",
            hint="choose dp as a multiple of the nodes",
        )
    if processes > 1 and world % processes:
        raise SpecError(
            f"{label}: {world} ranks ({arithmetic(pool)}) do not divide over "
            f"{processes} processes."
        )
    return Shape(nodes, processes // nodes, gpus // processes, world // processes)


def arithmetic(pool: PoolSpec) -> str:
    """Return the shape as factors: ``tp 2 x dp 6``."""
    factors = [f"tp {pool.tp}"]
    if pool.pp > 1:
        factors.append(f"pp {pool.pp}")
    if pool.pcp > 1:
        factors.append(f"pcp {pool.pcp}")
    if pool.dp > 1:
        factors.append(f"dp {pool.dp}{' inside tp' if pool.attention_dp else ''}")
    return " x ".join(factors)


def dp_ranks(pool: PoolSpec, index: int, processes: int) -> tuple[int, ...]:
    """Return the data-parallel ranks on one process of a replica."""
    if pool.dp >= processes:
        each = pool.dp // processes
        return tuple(range(index * each, (index + 1) * each))
    return (index * pool.dp // processes,)
