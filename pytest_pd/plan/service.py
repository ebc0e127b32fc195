"""One seat to one service: placeholders, command, environment, endpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pytest_pd.errors import SpecError
from pytest_pd.plan import control
from pytest_pd.plan.caches import cache_env
from pytest_pd.plan.model import Endpoint, ReadyPlan, Role, ServicePlan, SiteFacts
from pytest_pd.plan.placeholder import expand, has_placeholder, refuse_unfilled
from pytest_pd.plan.seam import POD_NAMESPACE, Engine, Launch, Router, Worker
from pytest_pd.plan.seat import Context, Seat
from pytest_pd.plan.shape import dp_ranks
from pytest_pd.spec.pool import PoolSpec
from pytest_pd.spec.topology import TopologySpec


@dataclass(frozen=True, slots=True)
class Started:
    """A service, and what the rest of the plan needs to know about it."""

    service: ServicePlan
    endpoint: Endpoint | None
    after: tuple[Role, ...]
    notes: tuple[str, ...]


def fill_for_run(topology: TopologySpec, site: SiteFacts) -> TopologySpec:
    """Fill in what is the same for every process, in what processes look at."""
    run = {"run_dir": site.run_dir, "run_id": site.run_id}
    filled = {
        key: expand(part, run, topology.name, partial=True)
        for key in ("engine", "kv_transfer", "router", "control_plane")
        if (part := getattr(topology, key)) is not None
    }
    return topology.model_copy(update=filled)


def start_all(
    context: Context, seats: Sequence[Seat], engine: Engine, router: Router | None
) -> tuple[Started, ...]:
    """Turn seats into services, in the same order."""
    peers = {
        seat.name: f"{context.address(seat.node)}:{seat.ports[seat.name]}"
        for seat in seats
        if seat.role is Role.CONTROL
    }
    heads = {(seat.role, seat.replica): seat for seat in seats if not seat.index}
    started: list[Started] = []
    for seat in seats:
        worker = _worker(context, seat, heads[seat.role, seat.replica], peers)
        launch = _launch(context, worker, started, engine, router)
        started.append(_started(context, seat, worker, launch))
    return tuple(started)


def _launch(
    context: Context,
    worker: Worker,
    before: Sequence[Started],
    engine: Engine,
    router: Router | None,
) -> Launch:
    if worker.role is Role.CONTROL and context.topology.control_plane:
        return control.launch(worker.name, worker, context.topology.control_plane)
    if worker.role is Role.ROUTER and router:
        workers = [
            replace(each.endpoint, url=each.endpoint.known_as)
            for each in before
            if each.endpoint and each.endpoint.role is not Role.ROUTER
        ]
        return router.launch(worker, behind_services(context, workers))
    return engine.launch(worker)


def behind_services(
    context: Context, workers: Sequence[Endpoint]
) -> Sequence[Endpoint]:
    """Return what a router is told: every worker, or one Service per role.

    One cluster IP before several pods is told as one URL with as many ranks. In a
    namespace that others use, names of Services carry the run's id.
    """
    spec, place = context.topology.kubernetes, context.cluster.kubernetes
    prefix = f"pd-{context.site.run_id}-" if place and place.namespace else ""
    if spec is None or spec.front != "cluster_ip":
        return workers
    found = []
    for role in dict.fromkeys(worker.role for worker in workers):
        ours = [worker for worker in workers if worker.role is role]
        port = ours[0].url.rpartition(":")[2]
        name = spec.names(role).name or role.value
        ranks = tuple(range(len(ours)))
        url = f"http://{prefix}{name}.{POD_NAMESPACE}.svc.cluster.local:{port}"
        found.append(replace(ours[0], url=url, ranks=ranks, inside=""))
    return found


def _worker(
    context: Context, seat: Seat, head: Seat, peers: Mapping[str, str]
) -> Worker:
    each = max(seat.pool.world // seat.count, 1)
    topology, pool = _filled(context, seat)
    return Worker(
        name=seat.name,
        role=seat.role,
        replica=seat.replica,
        index=seat.index,
        count=seat.count,
        address=context.address(seat.node),
        head=context.address(head.node),
        gpu_ids=seat.slot.gpu_ids if seat.slot else (),
        ports=seat.ports,
        head_ports=head.ports,
        pool=pool,
        topology=topology,
        site=context.site,
        peers=peers,
        ranks=tuple(range(seat.index * each, (seat.index + 1) * each))
        if seat.slot
        else (),
        dp_ranks=dp_ranks(seat.pool, seat.index, seat.count) if seat.slot else (),
    )


def _filled(context: Context, seat: Seat) -> tuple[TopologySpec, PoolSpec]:
    """Fill in the placeholders that differ from process to process."""
    values: dict[str, object] = {
        "name": seat.name,
        "replica": seat.replica,
        "index": seat.index,
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
    refuse_unfilled((pool.args, pool.env, topology.engine.args), where)
    return (topology.model_copy(update=shared) if shared else topology), pool


def _started(context: Context, seat: Seat, worker: Worker, launch: Launch) -> Started:
    pool, resources = worker.pool, worker.pool.resources
    layers = _env_layers(context, seat.node, worker, launch)
    service = ServicePlan(
        name=seat.name,
        role=seat.role,
        node=seat.node,
        argv=launch.argv,
        log=pool.logs[seat.index] if seat.index < len(pool.logs) else pool.log,
        ready=_ready(context, launch.ready, seat.node),
        env={key: value for _, env in layers for key, value in env.items()},
        env_from_host=_from_host(worker, launch),
        env_unset=launch.env_unset,
        gpu_ids=worker.gpu_ids,
        ranks=worker.ranks,
        ports=seat.ports,
        replica=seat.replica,
        image=_image(context, worker),
        mounts=pool.mounts,
        cpus=math.ceil(resources.cpu) if resources.cpu else None,
        memory_gib=resources.memory_gib,
        stop_grace_s=pool.stop_grace_s,
        env_source={key: source for source, env in layers for key in env},
        files=launch.files,
        shm_gib=resources.shm_gib,
        rdma_devices=pool.rdma_devices,
    )
    endpoint = _endpoint(worker, launch, context.reach(seat.node))
    return Started(service, endpoint, launch.after, launch.notes)


def _env_layers(
    context: Context, node: str, worker: Worker, launch: Launch
) -> tuple[tuple[str, Mapping[str, str]], ...]:
    """Return the environment's layers; a later one wins."""
    cluster = context.cluster
    is_worker = worker.role not in (Role.ROUTER, Role.CONTROL)
    caches = cache_env(cluster, worker.topology, _image(context, worker))
    return (
        ("cache_dir", caches if is_worker else {}),
        ("plan", {**launch.env, **_visible_gpus(context, worker)}),
        ("engine.env", worker.topology.engine.env if is_worker else {}),
        (f"{worker.role}.env", worker.pool.env),
        (f"cluster {cluster.name}", {**cluster.fabric_env, **cluster.env}),
        (f"node {node}", _node_env(context, node)),
    )


def _from_host(worker: Worker, launch: Launch) -> tuple[str, ...]:
    is_worker = worker.role not in (Role.ROUTER, Role.CONTROL)
    shared = worker.topology.engine.env_from_host if is_worker else ()
    return tuple(
        dict.fromkeys((*launch.env_from_host, *shared, *worker.pool.env_from_host))
    )


def _node_env(context: Context, node: str) -> Mapping[str, str]:
    """Return what the cluster file says for a node, by whichever of its names."""
    cluster = context.cluster
    if not cluster.node_env:
        return {}
    names, index = cluster.node_names, cluster.node_names[node]
    return {
        key: value
        for name, env in cluster.node_env.items()
        if names.get(name) == index
        for key, value in env.items()
    }


def _ready(context: Context, ready: ReadyPlan, node: str) -> ReadyPlan:
    budgets = context.topology.budgets
    target = ready.target
    if ready.kind in ("http", "tcp"):
        target = target.replace(f"{context.address(node)}:", f"{context.reach(node)}:")
    return replace(
        ready,
        target=target,
        budget_s=budgets.ready_s or ready.budget_s,
        stall_s=budgets.stall_s or ready.stall_s,
    )


def _visible_gpus(context: Context, worker: Worker) -> Mapping[str, str]:
    # on Kubernetes the device plugin numbers a pod's GPUs from 0 by itself
    if not worker.gpu_ids or context.cluster.backend == "kubernetes":
        return {}
    ids = list(worker.gpu_ids)
    if worker.pool.visible_gpus == "node":
        everything = range(context.cluster.gpus_per_node)
        ids += [gpu for gpu in everything if gpu not in worker.gpu_ids]
    name = "HIP" if context.cluster.hardware.startswith("mi") else "CUDA"
    return {f"{name}_VISIBLE_DEVICES": ",".join(map(str, ids))}


def _image(context: Context, worker: Worker) -> str | None:
    own = worker.pool.image
    shared = context.topology.engine.image if worker.role is not Role.CONTROL else None
    image = own or shared
    return context.cluster.images.get(image, image) if image else None


def _endpoint(worker: Worker, launch: Launch, reach: str) -> Endpoint | None:
    if not launch.endpoint:
        return None
    if "http" not in worker.ports:
        raise SpecError(f"{worker.name} serves an API and asked for no http port.")
    metrics, http = worker.ports.get(launch.metrics_port), worker.ports["http"]
    return Endpoint(
        service=worker.name,
        role=worker.role,
        url=f"http://{reach}:{http}",
        ranks=launch.ranks,
        metrics_url=f"http://{reach}:{metrics}/metrics" if metrics else None,
        inside="" if reach == worker.address else f"http://{worker.address}:{http}",
    )
