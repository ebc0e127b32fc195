"""``--rehearse``: the same plan on machines without the hardware. Pure.

`rehearse` turns a topology and a cluster into a pair that every other part takes as
it takes any: ``plan_deployment(*rehearse(topology, cluster))`` plans it, and the
returned cluster's backend runs it. Nothing else needs to know, for the pair says so
itself: the engine is called ``vllm@rehearsal``, and the plan made of it carries
``rehearsal=True``, a name with ``@rehearsal`` behind it and an identity of its own.

    topology, cluster = rehearse(topology, cluster, installed=is_installed)
    plan = plan_deployment(topology, cluster, site)
    BACKENDS.get(cluster.backend)().allocate(cluster, plan, context)

What changes and what does not:

- Nodes, GPU ids, ranks, ports, endpoints, refusals: as planned for the hardware.
- Addresses: the backend's. Locally every planned node is one loopback address.
- Engine: the reference engine, after the real one's flags were checked.
- Model: the project's small one, under the name that the topology serves.
- Router: the real one where it is installed, else the built-in proxy.
- Containers and images: left out.
"""

from __future__ import annotations

from collections.abc import Callable

from pytest_pd.errors import SpecError
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.topology import (
    EngineSpec,
    KvTransferSpec,
    ModelSpec,
    PoolSpec,
    RouterSpec,
    TopologySpec,
)

SUFFIX = "@rehearsal"
STAND_INS = ("vllm", "dynamo")
"""Engines that `pytest_pd.engines.rehearsed` knows how to play."""

TINY = "fixtures/models/tiny"
NODE_GPUS = {"gb200": 4, "gb300": 4, "cpu": 0}
OTHER_NODE_GPUS = 8
NODES = 1024
"""More than any topology uses: a rehearsal plans only the nodes it needs."""

PROGRAMS = {"vllm_router": "vllm-router"}
"""Routers that can stand before the reference engine, and their program."""

FAR = ("ssh", "kubernetes")
"""Backends whose machines do not share this one's programs."""

KEPT = ("http",)
"""Ports of a router that the built-in proxy has as well."""

SHARED = ("shared_storage", "ExampleConnector", "SharedStorageConnector")


def rehearse(
    topology: TopologySpec,
    cluster: ClusterSpec,
    *,
    installed: Callable[[str], bool] | None = None,
) -> tuple[TopologySpec, ClusterSpec]:
    """Return what to plan and where to run it, with every engine played.

    Args:
        topology: As its file says. One whose engine is the reference engine
            already is returned with no more than the marks of a rehearsal.
        cluster: Where it shall run: this machine, SSH hosts or a Slurm site.
        installed: Tells whether a program, a real router, is on this host; that
            says nothing about SSH hosts and pods, which get the built-in proxy.

    Raises:
        SpecError: the engine cannot be played.
    """
    played = topology.model_copy(
        update={
            "engine": played_engine(topology.engine),
            "model": ModelSpec(path=TINY, served_name=topology.model.served_name),
            "kv_transfer": played_transfer(topology.kv_transfer),
            "router": played_router(
                topology, never if is_far(cluster) else installed or never
            ),
            "control_plane": None,
            "level": "quick",
            "determinism": "exact",
            **{
                role: played_pool(pool)
                for role in ("prefill", "decode", "aggregated")
                if (pool := getattr(topology, role)) is not None
            },
        }
    )
    return played, played_cluster(topology, cluster)


def is_far(cluster: ClusterSpec) -> bool:
    """Tell whether services run where this machine's programs are not."""
    site = cluster.kubernetes
    return cluster.backend in FAR and not (site is not None and site.local)


def never(program: str) -> bool:
    """Say of every program that it is not there."""
    return False


def is_rehearsal(topology: TopologySpec) -> bool:
    """Tell whether a topology came out of `rehearse`."""
    return topology.engine.kind.endswith(SUFFIX)


def played_engine(engine: EngineSpec) -> EngineSpec:
    """Return the stand-in of an engine; its flags stay, to be checked.

    Raises:
        SpecError: nobody plays this engine.
    """
    kind = engine.kind.removesuffix(SUFFIX)
    if kind not in (*STAND_INS, "reference"):
        raise SpecError.unknown("rehearsal: engine", kind, (*STAND_INS, "reference"))
    update = {"kind": f"{kind}{SUFFIX}", "image": None, "executable": None}
    return engine.model_copy(update={**update, "env_from_host": ()})


def played_transfer(transfer: KvTransferSpec | None) -> KvTransferSpec | None:
    """Return how the stand-in hands KV over: files as files, all else by pull."""
    if transfer is None or transfer.connector in SHARED:
        return transfer
    return KvTransferSpec(connector="nixl")


def played_router(
    topology: TopologySpec, installed: Callable[[str], bool]
) -> RouterSpec | None:
    """Return the real router where it is installed, else the built-in proxy."""
    router = topology.router
    if router is None or router.kind == "proxy":
        return router
    program = PROGRAMS.get(router.kind)
    if program and installed(router.executable or program):
        return router.model_copy(update={"image": None, "env_from_host": ()})
    return router.model_copy(
        update={
            "kind": "proxy",
            "policy": None,
            "executable": None,
            "image": None,
            "env_from_host": (),
            "args": (),
            "config": {},
            "ports": {
                name: port for name, port in router.ports.items() if name in KEPT
            },
        }
    )


def played_pool(pool: PoolSpec) -> PoolSpec:
    """Return a pool whose processes need no container and no secret."""
    workers = tuple(w.model_copy(update={"image": None}) for w in pool.workers)
    update = {"image": None, "mounts": (), "env_from_host": (), "workers": workers}
    return pool.model_copy(update=update)


def played_cluster(topology: TopologySpec, cluster: ClusterSpec) -> ClusterSpec:
    """Return the cluster to plan for: the hardware's shape, the backend as given.

    A cluster of the topology's own hardware stays what it is, with its limits. Any
    other lends its backend, and its nodes count as that hardware.
    """
    bare = cluster.slurm and cluster.slurm.model_copy(update={"container": None})
    if cluster.hardware in topology.hardware_kinds:
        return cluster.model_copy(update={"slurm": bare})
    hardware = topology.hardware_kinds[0]
    gpus = topology.placement.gpus_per_node or NODE_GPUS.get(hardware, OTHER_NODE_GPUS)
    return cluster.model_copy(
        update={
            "hardware": hardware,
            "nodes": NODES if cluster.backend == "local" else cluster.nodes,
            "gpus_per_node": gpus,
            "models": {},
            "slurm": bare and bare.model_copy(update={"gpus_by": "none"}),
        }
    )
