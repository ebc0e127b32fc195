"""Replicas to nodes and GPU ids, or a refusal that shows the arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pytest_pd.errors import SpecError
from pytest_pd.plan.model import Role
from pytest_pd.spec.pool import NodeRef, PoolSpec


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica to be placed.

    Attributes:
        nodes: Machines it spans.
        per_node: Processes on each of them.
        gpus: GPUs of one process; 0 where the cluster has none.
        pins: Node indices it must use, in order; empty to let the plan choose.
        gpu_pins: Node-local GPU ids it must use on each node.
    """

    role: Role
    number: int
    pool: PoolSpec
    nodes: int
    per_node: int
    gpus: int
    pins: tuple[int, ...] = ()
    gpu_pins: tuple[int, ...] = ()

    @property
    def node_gpus(self) -> int:
        return self.per_node * self.gpus

    @property
    def label(self) -> str:
        return f"{self.role}-{self.number}"


@dataclass(frozen=True, slots=True)
class Slot:
    """One process of one replica, placed."""

    replica: Replica
    index: int
    node: int
    gpu_ids: tuple[int, ...]


@dataclass(slots=True)
class Grid:
    """The nodes of a cluster while they are being given away.

    Attributes:
        alone: A node takes one replica: nodes are pods.
        free: Free GPU ids of each node, ascending.
        owner: Which role has a node, as far as roles do not share.
        load: Processes on each node: decides where there are no GPUs.
    """

    gpus: Sequence[int]
    shared: bool
    pack: bool
    alone: bool = False
    free: list[list[int]] = field(init=False)
    owner: dict[int, Role] = field(default_factory=dict)
    load: list[int] = field(init=False)
    start: dict[Role, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.free = [list(range(count)) for count in self.gpus]
        self.load = [0] * len(self.gpus)

    def open_to(self, node: int, replica: Replica) -> bool:
        """Can the replica use its share of this node?"""
        if not self.shared and self.owner.get(node, replica.role) is not replica.role:
            return False
        if self.alone and self.load[node]:
            return False
        free = self.free[node]
        if replica.gpu_pins:
            return set(replica.gpu_pins) <= set(free)
        return len(free) >= replica.node_gpus

    def take(self, node: int, replica: Replica) -> tuple[int, ...]:
        """Give the replica its GPUs of this node; they are not free any more."""
        free = self.free[node]
        taken = replica.gpu_pins or tuple(free[: replica.node_gpus])
        self.free[node] = [gpu for gpu in free if gpu not in taken]
        self.owner.setdefault(node, replica.role)
        self.load[node] += replica.per_node
        return taken

    def candidates(self, role: Role) -> Iterable[int]:
        """Nodes in the order in which they should be tried."""
        if not self.pack or not any(self.gpus):
            return sorted(
                range(len(self.gpus)), key=lambda node: (self.load[node], node)
            )
        first = self.start.get(role, 0)
        while first < len(self.gpus) and self._closed(first, role):
            first += 1
        self.start[role] = first
        return range(first, len(self.gpus))

    def _closed(self, node: int, role: Role) -> bool:
        taken = not self.shared and self.owner.get(node, role) is not role
        return taken or not self.free[node]


def place(
    replicas: Sequence[Replica],
    gpus: Sequence[int],
    *,
    shared: bool,
    pack: bool,
    alone: bool = False,
) -> tuple[Slot, ...]:
    """Give every process a node and GPU ids; pinned replicas choose first.

    Args:
        replicas: In the order of the plan.
        gpus: GPUs of each node of the cluster.
        shared: Roles may share a node.
        pack: Fill a node before the next is opened.
        alone: One replica per node.

    Raises:
        SpecError: pins that contradict each other, or too few nodes or GPUs.
    """
    grid = Grid(gpus, shared, pack, alone)
    order = sorted(replicas, key=lambda r: not (r.pins or r.gpu_pins))
    placed: dict[tuple[Role, int], list[Slot]] = {}
    for replica in order:
        nodes = _pinned(grid, replica) if replica.pins else _chosen(grid, replica)
        placed[replica.role, replica.number] = _slots(grid, replica, nodes)
    return tuple(
        slot for replica in replicas for slot in placed[replica.role, replica.number]
    )


def _slots(grid: Grid, replica: Replica, nodes: Sequence[int]) -> list[Slot]:
    slots = []
    for position, node in enumerate(nodes):
        taken = grid.take(node, replica)
        for part in range(replica.per_node):
            ids = taken[part * replica.gpus : (part + 1) * replica.gpus]
            slots.append(Slot(replica, position * replica.per_node + part, node, ids))
    return slots


def _pinned(grid: Grid, replica: Replica) -> Sequence[int]:
    if len(replica.pins) != replica.nodes:
        raise SpecError(
            f"{replica.label} spans {replica.nodes} nodes and {len(replica.pins)} "
            f"{'is' if len(replica.pins) == 1 else 'are'} pinned.",
            hint=f"give nodes: with {replica.nodes} entries",
        )
    for node in replica.pins:
        if node >= len(grid.gpus):
            raise SpecError(
                f"{replica.label} is pinned to node {node}; the cluster has "
                f"{len(grid.gpus)} (0 to {len(grid.gpus) - 1})."
            )
        if not grid.open_to(node, replica):
            raise SpecError(_why_closed(grid, node, replica))
    return replica.pins


def _why_closed(grid: Grid, node: int, replica: Replica) -> str:
    wanted = (
        f"GPUs {list(replica.gpu_pins)}"
        if replica.gpu_pins
        else f"{replica.node_gpus} GPUs"
    )
    owner = grid.owner.get(node)
    if not grid.shared and owner not in (None, replica.role):
        return (
            f"{replica.label} is pinned to node {node}, which {owner} has, and "
            "placement.roles_share_nodes is off."
        )
    return (
        f"{replica.label} needs {wanted} of node {node}; free there are "
        f"{grid.free[node]} of {grid.gpus[node]} "
        f"({grid.gpus[node] - len(grid.free[node])} are given to other workers)."
    )


def _chosen(grid: Grid, replica: Replica) -> Sequence[int]:
    found = []
    for node in grid.candidates(replica.role):
        if grid.open_to(node, replica):
            found.append(node)
            if len(found) == replica.nodes:
                return found
    each = f" of {replica.node_gpus} free GPUs" if replica.node_gpus else ""
    raise SpecError(
        f"{replica.label} needs {replica.nodes} "
        f"node{'s' if replica.nodes > 1 else ''}{each}; "
        f"{len(found)} of the cluster's {len(grid.gpus)} "
        f"{'is' if len(found) == 1 else 'are'} left."
    )


def resolve_node(ref: NodeRef, names: Mapping[str, int], what: str) -> int:
    """Turn a node index or name into an index.

    Raises:
        SpecError: no node has this name.
    """
    if isinstance(ref, int):
        return ref
    if ref in names:
        return names[ref]
    raise SpecError.unknown(f"{what}: node", ref, names)
