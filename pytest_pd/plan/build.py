"""Topology and cluster to a deployment plan: pure, and the only way to make one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from pytest_pd.errors import SpecError
from pytest_pd.plan.identity import identity_of
from pytest_pd.plan.layout import Layout, lay_out, pools_of
from pytest_pd.plan.length import check_lengths
from pytest_pd.plan.model import (
    UNKNOWN_SITE,
    DeploymentPlan,
    ExpectedEvidence,
    KvShape,
    NodePlan,
    Role,
    ServicePlan,
    SiteFacts,
)
from pytest_pd.plan.seam import Engine, Router
from pytest_pd.plan.seat import Context, take_seats
from pytest_pd.plan.service import Started, fill_for_run, start_all
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.extra import IdentitySpec
from pytest_pd.spec.topology import TopologySpec
from pytest_pd.spec.workload import WorkloadSpec

LOG_BYTES = 16 * 2**20
"""What one service's log is counted with."""

KV_TOKENS = 200_000
"""Tokens of KV that shared storage is counted with: the suites' prompts."""

TESTS_S = {"quick": 300.0, "standard": 1800.0, "full": 14400.0}
TEARDOWN_S = 60.0
ESTIMATES = ("queue_s", "setup_s", "tests_s", "teardown_s")
"""Budgets of stages that nothing ends."""


def make_plan(
    topology: TopologySpec,
    cluster: ClusterSpec,
    engine: Engine,
    router: Router | None,
    site: SiteFacts = UNKNOWN_SITE,
    *,
    kv: KvShape | None = None,
    workloads: Sequence[WorkloadSpec] = (),
    rehearsal: bool = False,
) -> DeploymentPlan:
    """Lay a topology out on a cluster.

    Args:
        site: What only an allocation knows; the plan is made again with it.
        kv: Shape of the model's KV, when its config could be read.
        workloads: Those of the topology, to be held against its limits.
        rehearsal: The engine is a stand-in: name and identity say so.

    Raises:
        SpecError: it does not fit, or engine or router refuse it; says why.
    """
    _check_front(topology, router)
    layout = lay_out(topology, cluster, engine)
    whole = _with_nodes(topology, layout)
    notes = [*engine.check(whole), *(router.check(whole) if router else ())]
    context = Context(fill_for_run(topology, site), cluster, site)
    seats = take_seats(context, layout, engine, router)
    started = start_all(context, seats, engine, router)
    services = _ordered(started)
    _refuse_shared_logs(services)
    notes += check_lengths(topology, workloads)
    expected = _expected(context.topology, engine, kv)
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
        expected=expected,
        level=topology.level,
        rehearsal=rehearsal,
        disk_bytes=_disk_bytes(services, expected),
        notes=tuple(dict.fromkeys([*layout.notes, *notes, *_carried(topology)])),
        budgets_s=_budgets_s(topology, services),
        performance_only=topology.performance_only,
        kubernetes=topology.kubernetes.model_dump(mode="json", exclude_defaults=True)
        if topology.kubernetes
        else {},
    )


def _with_nodes(topology: TopologySpec, layout: Layout) -> TopologySpec:
    """Let the engine judge pools with the nodes that their replicas came to span."""
    spans = {slot.replica.role: slot.replica.nodes for slot in layout.slots}
    pools = {
        role.value: pool.model_copy(update={"nodes_per_replica": spans[role]})
        for role, pool in pools_of(topology)
    }
    return topology.model_copy(update=pools)


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


def _ordered(started: Sequence[Started]) -> tuple[ServicePlan, ...]:
    """Turn roles that must be ready first into names of services."""
    by_role: dict[Role, list[str]] = {}
    for each in started:
        by_role.setdefault(each.service.role, []).append(each.service.name)
    ordered = []
    for each in started:
        first = () if each.service.role is Role.CONTROL else (Role.CONTROL,)
        roles = dict.fromkeys((*first, *each.after))
        names = tuple(name for role in roles for name in by_role.get(role, ()))
        ordered.append(replace(each.service, after=names) if names else each.service)
    return tuple(ordered)


def _refuse_shared_logs(services: Sequence[ServicePlan]) -> None:
    # the run directory may be shared, so a path is one file on every node
    seen: dict[str, str] = {}
    for service in services:
        other = seen.setdefault(service.log, service.name)
        if other != service.name:
            raise SpecError(
                f"{service.name} and {other} both log to {service.log!r}.",
                hint="put {name} into the pool's log",
            )


def _nodes(context: Context, services: Sequence[ServicePlan]) -> tuple[NodePlan, ...]:
    used: dict[str, set[int]] = {}
    for service in services:
        used.setdefault(service.node, set()).update(service.gpu_ids)
    gpus, index = context.cluster.node_gpus, context.cluster.node_names
    pods = context.cluster.backend == "kubernetes"
    return tuple(
        NodePlan(
            name,
            context.address(name),
            len(used[name]) if pods else gpus[index[name]],
            len(used[name]),
        )
        for name in sorted(used, key=lambda name: index[name])
    )


def _expected(
    topology: TopologySpec, engine: Engine, kv: KvShape | None
) -> ExpectedEvidence:
    handover = engine.handover(topology)
    moves = topology.kv_transfer if topology.prefill else None
    files = moves is not None and handover.transfer == "shared_storage"
    return ExpectedEvidence(
        kv=kv,
        block_tokens=handover.block_tokens,
        transfer=handover.transfer if topology.prefill else "none",
        whole_blocks=handover.whole_blocks,
        true_tokens=handover.true_tokens and not topology.performance_only,
        deterministic=topology.determinism,
        kv_path=(moves.path or "") if moves and files else "",
    )


def _disk_bytes(services: Sequence[ServicePlan], expected: ExpectedEvidence) -> int:
    files = expected.transfer == "shared_storage" and expected.kv
    kv_bytes = KV_TOKENS * expected.kv.bytes_per_token if files and expected.kv else 0
    return len(services) * LOG_BYTES + kv_bytes


def _budgets_s(
    topology: TopologySpec, services: Sequence[ServicePlan]
) -> Mapping[str, float]:
    budgets = topology.budgets
    return {
        **({"queue": budgets.queue_s} if budgets.queue_s else {}),
        **({"setup": budgets.setup_s} if budgets.setup_s else {}),
        "ready": budgets.ready_s or max(s.ready.budget_s for s in services),
        "tests": budgets.tests_s or TESTS_S[topology.level],
        "teardown": budgets.teardown_s or TEARDOWN_S,
    }


def _carried(topology: TopologySpec) -> Iterator[str]:
    """Say what the file asks for and this harness records without doing it."""
    router = topology.router
    if router and router.replicas > 1:
        balancer = router.balancer or "no balancer"
        yield (
            f"{router.replicas} routers behind {balancer}: it is not started here; "
            "clients use the first router."
        )
    for name in ("setup", "software", "profiling"):
        if getattr(topology, name):
            yield f"{name}: is recorded; nothing here carries it out."
    if topology.identity != IdentitySpec():
        yield "identity: is recorded; nothing here compares what runs with it."
    if topology.placement.same_nvlink_domain:
        yield "placement.same_nvlink_domain: is recorded; nothing here looks for it."
    given = [name for name in ESTIMATES if getattr(topology.budgets, name)]
    if given:
        yield f"budgets.{', '.join(given)}: counted as costs; nothing ends a stage."
    if topology.performance_only:
        yield "Forced acceptance bends the tokens: performance suites only."
