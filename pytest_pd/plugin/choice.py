"""From the words on the command line to topologies and a cluster."""

from __future__ import annotations

import os
import shutil
from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.installer.paths import find_program
from pytest_pd.plan.model import DeploymentPlan
from pytest_pd.plugin.facts import facts_of
from pytest_pd.plugin.selection import DEFAULT, Selected, can_match, hardware_in
from pytest_pd.provision.compose import engine_of, plan_deployment, router_of
from pytest_pd.provision.deployment import Deployment
from pytest_pd.provision.duration import duration_s
from pytest_pd.secret import redact, secrets_in
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.file import read_cluster, read_topology
from pytest_pd.spec.locate import Found, Roots, catalogue, find, find_one
from pytest_pd.spec.topology import TopologySpec


@dataclass(frozen=True, slots=True)
class Choice:
    """What a session runs on.

    Attributes:
        specs: Topology id to specification, in the order of `selected`.
        plans: Topology id to plan, before any allocation.
        clusters: Topology id to where it runs: `cluster`, or for a rehearsal what
            `rehearse` makes of it.
        attached: Topology id to the deployment that was up before.
    """

    selected: tuple[Selected, ...]
    specs: Mapping[str, TopologySpec]
    plans: Mapping[str, DeploymentPlan]
    clusters: Mapping[str, ClusterSpec]
    cluster: ClusterSpec
    roots: Roots
    attached: Mapping[str, Deployment] = field(default_factory=dict)

    def id_of(self, spec: TopologySpec) -> str:
        """Return the id under which `spec` was selected."""
        return next(name for name, each in self.specs.items() if each is spec)


def choose(config: pytest.Config) -> Choice:
    """Read what the options, the ini file and the environment ask for.

    Raises:
        SpecError: an unknown name, a file that cannot be read, hardware that
            the cluster has not.
    """
    check_keep(config.getoption("pd_keep"))
    roots = Roots(config.rootpath, tuple(config.getini("pd_topology_path")))
    cluster = choose_cluster(config, roots)
    if config.getoption("pd_attach"):
        return choose_attached(config, roots, cluster)
    selected: list[Selected] = []
    specs: dict[str, TopologySpec] = {}
    plans: dict[str, DeploymentPlan] = {}
    clusters: dict[str, ClusterSpec] = {}
    stage = make_stage(config, cluster)
    for found in wanted(config, roots, cluster):
        spec, place = stage(read_topology(found.path, found.name))
        plan = plan_deployment(spec, place, roots=roots)
        if config.getoption("pd_plan"):  # a plan can be read without its hardware
            found = replace(found, explicit=False)
        chosen = select(found, spec, plan, place)
        refuse_twice(chosen, selected)
        selected.append(chosen)
        specs[chosen.id], plans[chosen.id] = spec, plan
        clusters[chosen.id] = place
    return Choice(tuple(selected), specs, plans, clusters, cluster, roots)


def choose_attached(
    config: pytest.Config, roots: Roots, cluster: ClusterSpec
) -> Choice:
    """Return the deployments that ``--attach`` names as topologies of the session.

    Raises:
        ProvisionError: one of them is not up.
    """
    from pytest_pd.plugin.attach import attach

    found = {each.deployment.plan.name: each for each in attach(config, roots, cluster)}
    plans = {name: each.deployment.plan for name, each in found.items()}
    selected = tuple(
        Selected(
            id=name,
            path=each.path,
            hardware=plans[name].hardware,
            level=each.spec.level,
            explicit=True,
            facts=facts_of(each.spec, plans[name]),
        )
        for name, each in found.items()
    )
    return Choice(
        selected,
        {name: each.spec for name, each in found.items()},
        plans,
        {name: each.cluster for name, each in found.items()},
        cluster,
        roots,
        {name: each.deployment for name, each in found.items()},
    )


Stage = Callable[[TopologySpec], tuple[TopologySpec, ClusterSpec]]


def make_stage(config: pytest.Config, cluster: ClusterSpec) -> Stage:
    """Return what a topology file becomes: itself, or with ``--rehearse`` a play."""
    if not config.getoption("pd_rehearse"):
        return lambda spec: (levelled(spec, cluster), cluster)

    from pytest_pd.provision.rehearse import rehearse

    return lambda spec: rehearse(
        spec, cluster, installed=lambda program: find_program(program) is not None
    )


def levelled(spec: TopologySpec, cluster: ClusterSpec) -> TopologySpec:
    """Return the topology, tested quickly where its engines only play."""
    return spec.model_copy(update={"level": "quick"}) if cluster.stand_in else spec


def choose_cluster(config: pytest.Config, roots: Roots) -> ClusterSpec:
    """Return the cluster: option, ini file, ``PD_CLUSTER``, else ``local``."""
    name = (
        config.getoption("pd_cluster")
        or config.getini("pd_cluster")
        or os.environ.get("PD_CLUSTER")
        or "local"
    )
    return read_cluster(find_one("clusters", [name], roots).path)


def check_keep(text: str | None) -> None:
    """Refuse a ``--pd-keep`` that is no duration, before anything is started.

    Raises:
        SpecError: a word behind ``--pd-keep`` was taken for its time.
    """
    try:
        duration_s(text or "1h")
    except ArgumentTypeError as error:
        raise SpecError(
            f"--pd-keep: {error}.", hint="write --pd-keep=1h, with the sign"
        ) from error


def refuse_twice(chosen: Selected, others: Sequence[Selected]) -> None:
    """Refuse two files whose topologies have one name: results would mix.

    Raises:
        SpecError: names both files.
    """
    for other in others:
        if other.id == chosen.id:
            raise SpecError(
                f"topology {chosen.id!r} is in {other.path} and in {chosen.path}.",
                hint="give one of them another name",
            )


def wanted(
    config: pytest.Config, roots: Roots, cluster: ClusterSpec
) -> Sequence[Found]:
    """Return the topology files: those named, those of ``-m HARDWARE``, default."""
    names = config.getoption("pd_topology")
    if names:
        return find("topologies", names, roots)
    marks = hardware_in(config.getoption("markexpr", "") or "")
    if not marks:
        return find("topologies", [DEFAULT], roots)
    stage = make_stage(config, cluster)
    return of_hardware(config.getoption("markexpr"), roots, cluster, stage)


def of_hardware(
    expression: str, roots: Roots, cluster: ClusterSpec, stage: Stage
) -> Sequence[Found]:
    """Return every topology that ``-m EXPRESSION`` can mean and the cluster fits."""
    found = []
    for name, path in catalogue("topologies", roots).items():
        spec = read_topology(path, name)
        if can_match_any(expression, spec) and fits(*stage(spec)):
            found.append(Found(name, path, explicit=False))
    if not found:
        raise SpecError(
            f"no topology for -m {expression!r} fits cluster {cluster.name!r} "
            f"({cluster.hardware}, {cluster.nodes} nodes).",
            hint=where_else(cluster),
        )
    return found


def can_match_any(expression: str, spec: TopologySpec) -> bool:
    """Tell whether an expression can hold for any hardware of the topology."""
    return any(can_match(expression, kind) for kind in spec.hardware_kinds)


def fits(spec: TopologySpec, cluster: ClusterSpec) -> bool:
    """Tell whether a topology is meant for the cluster and can be placed there."""
    if cluster.hardware not in spec.hardware_kinds:
        return False
    try:
        plan_deployment(spec, cluster)
    except SpecError:
        return False
    return True


def select(
    found: Found, spec: TopologySpec, plan: DeploymentPlan, cluster: ClusterSpec
) -> Selected:
    """Return what the session needs to know about one topology.

    Raises:
        SpecError: it was named and is not for this cluster's hardware.
    """
    chosen = Selected(
        id=plan.name,
        path=found.path,
        hardware=plan.hardware,
        level=spec.level,
        explicit=found.explicit,
        facts=facts_of(spec, plan),
        unfit=missing_program(spec, cluster),
    )
    if cluster.hardware in spec.hardware_kinds or plan.rehearsal:
        return chosen
    error = wrong_hardware(spec, cluster)
    if found.explicit:
        raise error
    return replace(chosen, unfit=error.fact)


def wrong_hardware(spec: TopologySpec, cluster: ClusterSpec) -> SpecError:
    """Say that a topology is for other hardware, and the one line to write."""
    return SpecError(
        f"topology {spec.name!r} is for {' or '.join(spec.hardware_kinds)}, "
        f"cluster {cluster.name!r} has {cluster.hardware}.",
        hint=where_else(cluster),
    )


def where_else(cluster: ClusterSpec) -> str:
    """Return the one line to write where a topology does not fit the cluster."""
    slurm = cluster.backend == "local" and shutil.which("sbatch")
    line = "pd_cluster = <your cluster file> in the ini file, or --cluster NAME"
    return (
        f"this host has Slurm: write {line}" if slurm else line
    ) + "; or --rehearse to run the same plan here without its hardware"


def missing_program(spec: TopologySpec, cluster: ClusterSpec) -> str:
    """Return why the topology cannot start on this host; empty if it can."""
    if cluster.backend != "local":
        return ""
    router = router_of(spec)
    programs = [*engine_of(spec).programs(spec)]
    programs += router.programs(spec) if router else []
    for program in programs:
        if find_program(program.name) is None:
            return f"{program.name!r} is not installed here: {program.install}"
    return ""


def print_plans(config: pytest.Config) -> int:
    """Print the plan of every selected topology; start nothing."""
    from pytest_pd.errors import PdError
    from pytest_pd.plan.table import render

    secrets = secrets_in(os.environ)
    try:
        choice = choose(config)
    except PdError as error:
        raise pytest.UsageError(redact(str(error), secrets)) from error
    for plan in choice.plans.values():
        print(redact(render(plan), secrets))
    return 0
