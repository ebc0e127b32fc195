"""From pools to placed processes: which node, which GPUs, which ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pytest_pd.errors import SpecError
from pytest_pd.plan.model import Role
from pytest_pd.plan.placement import Replica, Slot, place, resolve_node
from pytest_pd.plan.seam import Engine
from pytest_pd.plan.shape import arithmetic, shape_of
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.pool import NodeRef, PoolSpec
from pytest_pd.spec.topology import TopologySpec

WORKER_POOLS = (Role.PREFILL, Role.DECODE, Role.AGGREGATED)


@dataclass(frozen=True, slots=True)
class Layout:
    """Every worker process on its node; `shared` if roles share a node."""

    slots: tuple[Slot, ...]
    shared: bool
    notes: tuple[str, ...] = ()


def lay_out(topology: TopologySpec, cluster: ClusterSpec, engine: Engine) -> Layout:
    """Place all workers.

    Raises:
        SpecError: they do not fit; says what each role needs and what there is.
    """
    replicas = tuple(_replicas(topology, cluster, engine))
    gpus = cluster.node_gpus
    pack = topology.placement.pack
    pods = cluster.backend == "kubernetes"
    mode = topology.placement.roles_share_nodes
    firm: dict[bool, SpecError] = {}
    for shared in {"off": (False,), "auto": (False, True)}.get(mode, (True,)):
        try:
            slots = place(replicas, gpus, shared=shared, pack=pack, alone=pods)
        except SpecError as error:
            firm[shared] = error
            continue
        if pods:
            _refuse_too_many_gpus(replicas, topology, cluster)
        notes = _sharing_notes(slots, by_need=shared and mode == "auto")
        if mode == "required":
            _require_sharing(slots)
        return Layout(slots, shared, notes)
    raise _too_small(list(firm.values())[-1], replicas, topology, cluster)


def _replicas(
    topology: TopologySpec, cluster: ClusterSpec, engine: Engine
) -> Iterator[Replica]:
    names = cluster.node_names
    for role, pool in pools_of(topology):
        for number in range(pool.replicas):
            own = pool.worker(number)
            label = f"{role}-{number}"
            shape = shape_of(
                own, engine.gpus_per_replica(own), cluster.gpus_per_node, label
            )
            pins, gpu_pins = _pins(pool, number)
            yield Replica(
                role,
                number,
                own.model_copy(update={"nodes_per_replica": shape.nodes}),
                shape.nodes,
                shape.per_node,
                shape.gpus,
                tuple(resolve_node(ref, names, label) for ref in pins),
                _checked_gpus(gpu_pins, shape.per_node * shape.gpus, cluster, label),
            )


def pools_of(topology: TopologySpec) -> Iterator[tuple[Role, PoolSpec]]:
    """Yield the roles that have workers, in the order of the plan."""
    for role in WORKER_POOLS:
        pool: PoolSpec | None = getattr(topology, role.value)
        if pool is not None:
            yield role, pool


def _pins(pool: PoolSpec, number: int) -> tuple[tuple[NodeRef, ...], tuple[int, ...]]:
    own = pool.workers[number] if pool.workers else None
    pins = own.pins if own else ()
    if not pins and pool.node is not None:
        pins = (pool.node,)
    return pins, own.gpus if own else ()


def _checked_gpus(
    pins: tuple[int, ...], wanted: int, cluster: ClusterSpec, label: str
) -> tuple[int, ...]:
    if not pins or not cluster.gpus_per_node:
        return ()
    if len(set(pins)) != len(pins) or len(pins) != wanted:
        raise SpecError(
            f"{label}: gpus {list(pins)} are pinned and its shape needs {wanted} "
            "different ones per node."
        )
    if max(pins) >= cluster.gpus_per_node:
        raise SpecError(
            f"{label}: GPU {max(pins)} is pinned; a node of {cluster.name!r} has "
            f"{cluster.gpus_per_node} (0 to {cluster.gpus_per_node - 1})."
        )
    return pins


def _roles_by_node(slots: tuple[Slot, ...]) -> dict[int, set[Role]]:
    found: dict[int, set[Role]] = {}
    for slot in slots:
        found.setdefault(slot.node, set()).add(slot.replica.role)
    return found


def _sharing_notes(slots: tuple[Slot, ...], *, by_need: bool) -> tuple[str, ...]:
    both = sorted(
        node for node, roles in _roles_by_node(slots).items() if len(roles) > 1
    )
    # without GPUs every role on one machine is the ordinary case
    if not both or not by_need or not any(slot.gpu_ids for slot in slots):
        return ()
    listed = ", ".join(f"node{node}" for node in both)
    return (f"Roles share {listed}: there are too few nodes to keep them apart.",)


def _require_sharing(slots: tuple[Slot, ...]) -> None:
    roles = {slot.replica.role for slot in slots}
    alone = [n for n, found in _roles_by_node(slots).items() if found != roles]
    if alone:
        raise SpecError(
            f"placement.roles_share_nodes is required, and node{alone[0]} would hold "
            f"only some of the roles {', '.join(sorted(roles))}.",
            hint="use fewer or smaller replicas, or roles_share_nodes: preferred",
        )


def _refuse_too_many_gpus(
    replicas: tuple[Replica, ...], topology: TopologySpec, cluster: ClusterSpec
) -> None:
    # pods are counted as nodes, so placing them says nothing about machines
    wanted = sum(replica.nodes * replica.node_gpus for replica in replicas)
    if wanted > cluster.nodes * cluster.gpus_per_node:
        error = SpecError("the cluster has too few GPUs.")
        raise _too_small(error, replicas, topology, cluster)


def _too_small(
    error: SpecError,
    replicas: tuple[Replica, ...],
    topology: TopologySpec,
    cluster: ClusterSpec,
) -> SpecError:
    lines = [f"{topology.name} does not fit {cluster.name!r}: {error.fact}"]
    total = 0
    for role, pool in pools_of(topology):
        ours = [r for r in replicas if r.role is role]
        gpus = sum(r.nodes * r.node_gpus for r in ours)
        total += gpus
        lines.append(
            f"  {role}: {len(ours)} x ({arithmetic(pool)}) = {gpus} GPUs, "
            f"{ours[0].nodes} node(s) of {ours[0].node_gpus} each"
        )
    lines.append(
        f"  wanted {total} GPUs; there are {cluster.nodes} nodes x "
        f"{cluster.gpus_per_node} = {cluster.nodes * cluster.gpus_per_node}"
    )
    return SpecError("\n".join(lines), hint=error.hint or "choose a larger cluster")
