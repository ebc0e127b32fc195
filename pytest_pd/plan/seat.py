"""Every process with its node and its ports, before it has a command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pytest_pd.errors import SpecError
from pytest_pd.plan import control
from pytest_pd.plan.layout import Layout
from pytest_pd.plan.model import Role, SiteFacts
from pytest_pd.plan.placement import Slot, resolve_node
from pytest_pd.plan.port import Claim, Ladder
from pytest_pd.plan.seam import Engine, Router
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.pool import NodeRef, PoolSpec
from pytest_pd.spec.topology import TopologySpec


@dataclass(frozen=True, slots=True)
class Context:
    """What every step of one plan looks at."""

    topology: TopologySpec
    cluster: ClusterSpec
    site: SiteFacts

    @property
    def pods(self) -> bool:
        """Whether every process has a node, that is a pod, of its own."""
        return self.cluster.backend == "kubernetes"

    def reach(self, node: str) -> str:
        """Return where the harness finds a node."""
        return self.site.reach.get(node, self.address(node))

    def address(self, node: str) -> str:
        """Return where services of a node listen; its name before we know."""
        return self.site.addresses.get(node, node)


@dataclass(frozen=True, slots=True)
class Seat:
    """One process of the plan.

    Attributes:
        slot: Placement of a worker; None for routers and the control plane.
    """

    name: str
    role: Role
    node: str
    pool: PoolSpec
    ports: Mapping[str, int]
    slot: Slot | None = None
    replica: int = 0

    @property
    def index(self) -> int:
        """Position inside its replica."""
        return self.slot.index if self.slot else 0

    @property
    def count(self) -> int:
        """Processes of its replica."""
        return self.slot.replica.nodes * self.slot.replica.per_node if self.slot else 1


@dataclass(frozen=True, slots=True)
class _Asked:
    """A claim with what becomes of it."""

    claim: Claim
    pool: PoolSpec
    slot: Slot | None = None
    replica: int = 0


def take_seats(
    context: Context, layout: Layout, engine: Engine, router: Router | None
) -> tuple[Seat, ...]:
    """Give every process a node and ports: fixed ports first, then the next free.

    Returns:
        Control plane, workers, routers: the order in which they start.
    """
    nodes = _Nodes(context, layout)
    control_node = nodes.of_control()
    asked = [
        *_control(context, control_node),
        *_workers(layout.slots, engine),
        *_routers(context, nodes.of_router(control_node), router),
    ]
    ladder = Ladder(context.site)
    fixed = [ladder.fix(each.claim) for each in asked]
    return tuple(
        Seat(
            each.claim.service,
            each.claim.role,
            each.claim.node,
            each.pool,
            ladder.fill(each.claim, ports),
            each.slot,
            each.replica,
        )
        for each, ports in zip(asked, fixed, strict=True)
    )


def _workers(slots: Sequence[Slot], engine: Engine) -> Iterator[_Asked]:
    siblings: dict[tuple[object, ...], int] = {}
    widths: dict[int, Mapping[str, int]] = {}
    for slot in slots:
        replica = slot.replica
        pool = replica.pool
        own = pool.workers[replica.number] if pool.workers else None
        # a port of the pool counts up over the pool's workers on a node, a port
        # of one worker over that worker's own processes
        pinned = own is not None and bool(own.port or own.ports)
        key = (slot.node, replica.role, replica.number if pinned else None)
        sibling = siblings[key] = siblings.get(key, -1) + 1
        many = replica.nodes * replica.per_node > 1
        if id(pool) not in widths:
            widths[id(pool)] = engine.ports(pool)
        claim = Claim(
            f"{replica.label}-{slot.index}" if many else replica.label,
            f"node{slot.node}",
            replica.role,
            widths[id(pool)],
            {**({"http": pool.port} if pool.port else {}), **pool.ports},
            sibling,
        )
        yield _Asked(claim, pool, slot, replica.number)


def _routers(context: Context, node: int, router: Router | None) -> Iterator[_Asked]:
    spec = context.topology.router
    if router is None or spec is None:
        return
    pool = PoolSpec(
        args=spec.args,
        env=spec.env,
        env_from_host=spec.env_from_host,
        log=spec.log,
        image=spec.image,
        mounts=spec.mounts,
        resources=spec.resources,
    )
    fixed = {**({"http": spec.port} if spec.port else {}), **spec.ports}
    for number in range(spec.replicas):
        name = "router" if spec.replicas == 1 else f"router-{number}"
        place = node + number if context.pods else node
        claim = Claim(name, f"node{place}", Role.ROUTER, router.ports(), fixed, number)
        yield _Asked(claim, pool, replica=number)


def _control(context: Context, node: int) -> Iterator[_Asked]:
    spec = context.topology.control_plane
    for number, service in enumerate(spec.services if spec else ()):
        widths = control.PORTS[service]
        fixed = {k: v for k, v in spec.ports.items() if k in widths} if spec else {}
        place = node + number if context.pods else node
        claim = Claim(service, f"node{place}", Role.CONTROL, widths, fixed)
        yield _Asked(claim, PoolSpec(image=spec.image if spec else None))


@dataclass(slots=True)
class _Nodes:
    """Where routers and the control plane go; own nodes follow the workers'."""

    context: Context
    layout: Layout
    taken: int = 0

    def of_control(self) -> int:
        """Return the node of the control plane."""
        spec = self.context.topology.control_plane
        ref = "own" if spec and self.context.pods else spec.node if spec else None
        return self._find(ref, "control_plane.node")

    def of_router(self, control_node: int) -> int:
        """Return the node of all routers."""
        spec = self.context.topology.router
        ref = spec.node if spec else None
        if self.context.pods:
            ref = "own"
        return control_node if ref == "control" else self._find(ref, "router.node")

    def _find(self, ref: NodeRef | None, what: str) -> int:
        slots = self.layout.slots
        if ref is None or ref == "first":
            return 0
        if ref == "own":
            return self._own(what)
        ours = [slot.node for slot in slots if slot.replica.role == ref]
        if ours:
            return ours[0]
        return resolve_node(ref, self.context.cluster.node_names, what)

    def width(self, what: str) -> int:
        """Return how many pods the services of ``control_plane`` or ``router`` are."""
        spec = self.context.topology.control_plane
        return len(spec.services) if spec and what == "control_plane.node" else 1

    def _own(self, what: str) -> int:
        cluster = self.context.cluster
        workers = max(slot.node for slot in self.layout.slots) + 1
        own = workers + self.taken
        self.taken += self.width(what) if self.context.pods else 1
        if own >= cluster.places:
            raise SpecError(
                f"{self.context.topology.name}: {what} is own, and the workers use "
                f"{workers} of the {cluster.places} nodes of {cluster.name!r}.",
                hint=f"a cluster of {own + 1} nodes, or {what}: first",
            )
        return own
