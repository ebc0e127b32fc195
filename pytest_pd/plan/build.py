"""Topology and cluster to a deployment plan: pure, and the only way to make one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pytest_pd.errors import SpecError
from pytest_pd.plan.identity import identity_of
from pytest_pd.plan.layout import Layout, lay_out
from pytest_pd.plan.model import (
    UNKNOWN_SITE,
    DeploymentPlan,
    Endpoint,
    ExpectedEvidence,
    KvShape,
    NodePlan,
    ReadyPlan,
    Role,
    ServicePlan,
    SiteFacts,
)
from pytest_pd.plan.placeholder import expand, has_placeholder
from pytest_pd.plan.placement import Slot, resolve_node
from pytest_pd.plan.port import Claim, Ladder
from pytest_pd.plan.seam import Engine, Launch, Router, Worker
from pytest_pd.plan.shape import dp_ranks
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.pool import PoolSpec
from pytest_pd.spec.topology import RouterSpec, TopologySpec


@dataclass(frozen=True, slots=True)
class _Context:
    """What every step of one plan looks at."""

    topology: TopologySpec
    cluster: ClusterSpec
    site: SiteFacts

    def address(self, node: str) -> str:
        return self.site.addresses.get(node, node)


@dataclass(frozen=True, slots=True)
class _Seat:
    """A process with its node and ports, before it has a command."""

    name: str
    role: Role
    node: str
    pool: PoolSpec
    ports: Mapping[str, int]
    slot: Slot | None = None
    replica: int = 0


@dataclass(frozen=True, slots=True)
class _Started:
    service: ServicePlan
    endpoint: Endpoint | None
    after: tuple[Role, ...]
    notes: tuple[str, ...]


def make_plan(
    topology: TopologySpec,
    cluster: ClusterSpec,
    engine: Engine,
    router: Router | None,
    site: SiteFacts = UNKNOWN_SITE,
    *,
    kv: KvShape | None = None,
    rehearsal: bool = False,
) -> DeploymentPlan:
    """Lay a topology out on a cluster.

    Args:
        site: What only an allocation knows; the plan is made again with it.
        kv: Shape of the model's KV, when its config could be read.
        rehearsal: The engine is a stand-in: name and identity say so.

    Raises:
        SpecError: it does not fit, or engine or router refuse it; says why.
    """
    _check_front(topology, router)
    layout = lay_out(topology, cluster, engine)
    notes = [*engine.check(topology), *(router.check(topology) if router else ())]
    context = _Context(_filled_for_run(topology, site), cluster, site)
    seats, front = _seats(context, layout, engine, router)
    heads = {(s.role, s.replica): s for s in seats if s.slot and not s.slot.index}
    started = [
        _start_worker(context, seat, heads[seat.role, seat.replica], engine)
        for seat in seats
    ]
    endpoints = [each.endpoint for each in started if each.endpoint]
    if router:
        started += [_start_router(context, seat, router, endpoints) for seat in front]
    services = _ordered(started)
    _refuse_shared_logs(services)
    for each in started:
        notes += each.notes
    return DeploymentPlan(
        name=topology.name + ("@rehearsal" if rehearsal else ""),
        identity=identity_of(topology, cluster, rehearsal=rehearsal),
        hardware=cluster.hardware,
        engine=engine.name,
        router=router.name if router else "",
        served_model=topology.model.served_name,
        model_path=topology.model.path,
        nodes=_nodes(context, services),
        services=services,
        endpoints=tuple(each.endpoint for each in started if each.endpoint),
        expected=_expected(topology, engine, kv),
        level=topology.level,
        rehearsal=rehearsal,
        notes=tuple(dict.fromkeys([*layout.notes, *notes])),
    )


def _filled_for_run(topology: TopologySpec, site: SiteFacts) -> TopologySpec:
    """Fill in what is the same for every process, in what processes look at."""
    run = {"run_dir": site.run_dir, "run_id": site.run_id}
    filled = {
        key: expand(getattr(topology, key), run, topology.name, partial=True)
        for key in ("engine", "kv_transfer", "router")
    }
    return topology.model_copy(update=filled)


def _check_front(topology: TopologySpec, router: Router | None) -> None:
    if router:
        return
    if topology.prefill:
        raise SpecError(
            f"{topology.name} has prefill and decode and no router: nobody would "
            "send a request through both.",
            hint="add router: {kind: proxy}",
        )
    if topology.aggregated and topology.aggregated.replicas > 1:
        raise SpecError(
            f"{topology.name} has {topology.aggregated.replicas} aggregated workers "
            "and no router: clients would use the first only.",
            hint="add router: {kind: proxy}, or replicas: 1",
        )


def _seats(
    context: _Context, layout: Layout, engine: Engine, router: Router | None
) -> tuple[list[_Seat], list[_Seat]]:
    """Give every process its ports: fixed ones first, then the next free."""
    claims = [
        *(_worker_claims(layout.slots, engine)),
        *(_router_claims(context, layout, router)),
    ]
    ladder = Ladder(context.site)
    fixed = [ladder.fix(claim) for claim, *_ in claims]
    seats = [
        _Seat(
            claim.service,
            claim.role,
            claim.node,
            pool,
            ladder.fill(claim, ports),
            slot,
            replica,
        )
        for (claim, pool, slot, replica), ports in zip(claims, fixed, strict=True)
    ]
    workers = [seat for seat in seats if seat.slot]
    return workers, [seat for seat in seats if not seat.slot]


_Claimed = tuple[Claim, PoolSpec, Slot | None, int]


def _worker_claims(slots: Iterable[Slot], engine: Engine) -> Iterable[_Claimed]:
    siblings: dict[tuple[int, Role], int] = {}
    for slot in slots:
        replica = slot.replica
        pool = replica.pool
        key = (slot.node, replica.role)
        sibling = siblings[key] = siblings.get(key, -1) + 1
        many = replica.nodes * replica.per_node > 1
        name = f"{replica.label}-{slot.index}" if many else replica.label
        fixed = {**({"http": pool.port} if pool.port else {}), **pool.ports}
        widths = engine.ports(pool)
        claim = Claim(name, f"node{slot.node}", replica.role, widths, fixed, sibling)
        yield claim, pool, slot, replica.number


def _router_claims(
    context: _Context, layout: Layout, router: Router | None
) -> Iterable[_Claimed]:
    spec = context.topology.router
    if router is None or spec is None:
        return
    for number in range(spec.replicas):
        name = "router" if spec.replicas == 1 else f"router-{number}"
        node = f"node{_router_node(context, layout, spec)}"
        fixed = {**({"http": spec.port} if spec.port else {}), **spec.ports}
        claim = Claim(name, node, Role.ROUTER, router.ports(), fixed, number)
        pool = PoolSpec(args=spec.args, env=spec.env, log=spec.log, image=spec.image)
        yield claim, pool, None, number


def _router_node(context: _Context, layout: Layout, spec: RouterSpec) -> int:
    """Index of the router's node: 0, or what ``router.node`` says."""
    used = [slot.node for slot in layout.slots]
    match spec.node:
        case None | "first":
            return 0
        case "own":
            own = max(used) + 1
            if own >= context.cluster.nodes:
                raise SpecError(
                    f"{context.topology.name}: router.node is own, and the workers "
                    f"use {own} of the {context.cluster.nodes} nodes of "
                    f"{context.cluster.name!r}.",
                    hint=f"a cluster of {own + 1} nodes, or router.node: first",
                )
            return own
        case "prefill" | "decode" | "aggregated" as role:
            ours = [s.node for s in layout.slots if s.replica.role == role]
            if ours:
                return ours[0]
        case _:
            pass
    return resolve_node(spec.node, context.cluster.node_names, "router")


def _start_worker(
    context: _Context, seat: _Seat, head: _Seat, engine: Engine
) -> _Started:
    worker = _worker(context, seat, head)
    launch = engine.launch(worker)
    return _started(context, seat, worker, launch, context.topology.engine.env)


def _start_router(
    context: _Context, seat: _Seat, router: Router, endpoints: Sequence[Endpoint]
) -> _Started:
    worker = _worker(context, seat, seat)
    return _started(context, seat, worker, router.launch(worker, endpoints), {})


def _worker(context: _Context, seat: _Seat, head: _Seat) -> Worker:
    slot = seat.slot
    count = slot.replica.nodes * slot.replica.per_node if slot else 1
    index = slot.index if slot else 0
    each = max(seat.pool.world // count, 1)
    topology, pool = _filled(context, seat)
    return Worker(
        name=seat.name,
        role=seat.role,
        replica=seat.replica,
        index=index,
        count=count,
        address=context.address(seat.node),
        head=context.address(head.node),
        gpu_ids=slot.gpu_ids if slot else (),
        ports=seat.ports,
        head_ports=head.ports,
        pool=pool,
        topology=topology,
        site=context.site,
        ranks=tuple(range(index * each, (index + 1) * each)) if slot else (),
        dp_ranks=dp_ranks(seat.pool, index, count) if slot else (),
    )


def _filled(context: _Context, seat: _Seat) -> tuple[TopologySpec, PoolSpec]:
    """Fill in the placeholders that differ from process to process."""
    values: dict[str, object] = {
        "name": seat.name,
        "replica": seat.replica,
        "index": seat.slot.index if seat.slot else 0,
        "run_dir": context.site.run_dir,
        "run_id": context.site.run_id,
        "node": seat.node,
        "node_ip": context.address(seat.node),
        **{f"port:{purpose}": port for purpose, port in seat.ports.items()},
    }
    topology, where = context.topology, f"{context.topology.name}: {seat.name}"
    mine = ("router",) if seat.role is Role.ROUTER else ("engine", "kv_transfer")
    shared = {
        key: expand(part, values, where)
        for key in mine
        if has_placeholder(part := getattr(topology, key))
    }
    pool = expand(seat.pool, values, where)
    return (topology.model_copy(update=shared) if shared else topology), pool


def _started(
    context: _Context,
    seat: _Seat,
    worker: Worker,
    launch: Launch,
    engine_env: Mapping[str, str],
) -> _Started:
    pool, cluster = worker.pool, context.cluster
    service = ServicePlan(
        name=seat.name,
        role=seat.role,
        node=seat.node,
        argv=launch.argv,
        log=pool.log,
        ready=_ready(context, launch.ready),
        env={
            **launch.env,
            **_visible_gpus(context, worker),
            **engine_env,
            **pool.env,
            **cluster.env,
            **cluster.node_env.get(seat.node, {}),
        },
        env_from_host=tuple(
            dict.fromkeys((*launch.env_from_host, *pool.env_from_host))
        ),
        env_unset=launch.env_unset,
        gpu_ids=worker.gpu_ids,
        ranks=worker.ranks,
        ports=seat.ports,
        replica=seat.replica,
        image=_image(context, pool),
        mounts=pool.mounts,
        cpus=int(pool.resources.cpu) if pool.resources.cpu else None,
        memory_gib=pool.resources.memory_gib,
        stop_grace_s=pool.stop_grace_s,
    )
    return _Started(service, _endpoint(worker, launch), launch.after, launch.notes)


def _ready(context: _Context, ready: ReadyPlan) -> ReadyPlan:
    budgets = context.topology.budgets
    return replace(
        ready,
        budget_s=budgets.ready_s or ready.budget_s,
        stall_s=budgets.stall_s or ready.stall_s,
    )


def _visible_gpus(context: _Context, worker: Worker) -> Mapping[str, str]:
    # on Kubernetes the device plugin numbers a pod's GPUs from 0 by itself
    if not worker.gpu_ids or context.cluster.backend == "kubernetes":
        return {}
    ids = list(worker.gpu_ids)
    if worker.pool.visible_gpus == "node":
        everything = range(context.cluster.gpus_per_node)
        ids += [gpu for gpu in everything if gpu not in worker.gpu_ids]
    name = "HIP" if context.cluster.hardware.startswith("mi") else "CUDA"
    return {f"{name}_VISIBLE_DEVICES": ",".join(map(str, ids))}


def _image(context: _Context, pool: PoolSpec) -> str | None:
    image = pool.image or context.topology.engine.image
    return context.cluster.images.get(image, image) if image else None


def _endpoint(worker: Worker, launch: Launch) -> Endpoint | None:
    if not launch.endpoint:
        return None
    metrics = worker.ports.get(launch.metrics_port)
    return Endpoint(
        service=worker.name,
        role=worker.role,
        url=f"http://{worker.address}:{worker.ports['http']}",
        ranks=launch.ranks,
        metrics_url=f"http://{worker.address}:{metrics}/metrics" if metrics else None,
    )


def _ordered(started: Sequence[_Started]) -> tuple[ServicePlan, ...]:
    """Turn roles that must be ready first into names of services."""
    by_role: dict[Role, list[str]] = {}
    for each in started:
        by_role.setdefault(each.service.role, []).append(each.service.name)
    return tuple(
        replace(
            each.service,
            after=tuple(n for role in each.after for n in by_role.get(role, ())),
        )
        if each.after
        else each.service
        for each in started
    )


def _refuse_shared_logs(services: Sequence[ServicePlan]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for service in services:
        # the run directory may be shared: a path is one file on every node
        other = seen.setdefault(("", service.log), service.name)
        if other != service.name:
            raise SpecError(
                f"{service.name} and {other} both log to {service.log!r}.",
                hint="put {name} into the pool's log",
            )


def _nodes(context: _Context, services: Sequence[ServicePlan]) -> tuple[NodePlan, ...]:
    used: dict[str, set[int]] = {}
    for service in services:
        used.setdefault(service.node, set()).update(service.gpu_ids)
    return tuple(
        NodePlan(
            name, context.address(name), context.cluster.gpus_per_node, len(used[name])
        )
        for name in sorted(used, key=lambda name: int(name.removeprefix("node")))
    )


def _expected(
    topology: TopologySpec, engine: Engine, kv: KvShape | None
) -> ExpectedEvidence:
    handover = engine.handover(topology)
    return ExpectedEvidence(
        kv=kv,
        block_tokens=handover.block_tokens,
        transfer=handover.transfer if topology.prefill else "none",
        whole_blocks=handover.whole_blocks,
        true_tokens=handover.true_tokens,
        deterministic=topology.determinism,
    )
