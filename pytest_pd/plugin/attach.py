"""``--attach``: run on a deployment that is up, by run id or by URL."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.plan.model import DeploymentPlan
from pytest_pd.provision.attach import attach_run, attach_url
from pytest_pd.provision.compose import plan_deployment
from pytest_pd.provision.deployment import Deployment
from pytest_pd.provision.rundir import RunDir, find_run, topologies_of
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.file import read_cluster, read_topology
from pytest_pd.spec.locate import Roots, find_one, split_words
from pytest_pd.spec.topology import TopologySpec

SUFFIX = "@attached"
ANY_SERVER = """
name: url
hardware: cpu
model: {path: unknown, served_name: unknown}
engine: {kind: vllm}
aggregated: {replicas: 1}
"""
"""What is assumed of a URL about which nothing is said."""


@dataclass(frozen=True, slots=True)
class Attached:
    """One deployment of somebody else's, and what it is taken for."""

    deployment: Deployment
    spec: TopologySpec
    cluster: ClusterSpec
    path: Path


def is_url(text: str) -> bool:
    """Tell an ``--attach`` URL from a run id."""
    return text.startswith(("http://", "https://"))


def attach(config: pytest.Config, roots: Roots, cluster: ClusterSpec) -> list[Attached]:
    """Return what ``--attach`` names.

    Raises:
        ProvisionError: it is not up.
        SpecError: ``--topology`` says something about it that cannot be.
    """
    target = config.getoption("pd_attach")
    if is_url(target):
        return [_by_url(config, target, roots, cluster)]
    return _by_run(config, target)


def _by_run(config: pytest.Config, run_id: str) -> list[Attached]:
    root = config.invocation_params.dir / "runs"
    run = find_run(run_id, root=root)
    folders = {_name(folder): folder for folder in topologies_of(run)}
    words = split_words(config.getoption("pd_topology") or ()) or ("*",)
    for word in words:
        if not any(fnmatchcase(name, word) for name in folders):
            raise SpecError(
                f"run {run_id!r} has no topology {word!r}.",
                hint=f"one of: {', '.join(folders)}",
            )
    return [
        Attached(
            _renamed(attach_run(run_id, root=root, topology=name)),
            read_topology(folder.plan_lock),
            read_cluster(folder.plan_lock),
            folder.plan_lock,
        )
        for name, folder in folders.items()
        if any(fnmatchcase(name, word) for word in words)
    ]


def _name(folder: RunDir) -> str:
    return str(folder.read_manifest().get("topology"))


def _by_url(
    config: pytest.Config, url: str, roots: Roots, cluster: ClusterSpec
) -> Attached:
    named = config.getoption("pd_topology")
    if named:
        found = find_one("topologies", named, roots)
        spec = read_topology(found.path, found.name)
    else:
        spec = any_server()
    deployment = attach_url(
        url,
        prefill=config.getoption("pd_attach_prefill") or (),
        decode=config.getoption("pd_attach_decode") or (),
    )
    known = plan_deployment(spec, cluster, roots=roots) if named else None
    if known is not None:
        deployment = replace(deployment, plan=_informed(deployment.plan, known))
    return Attached(_renamed(deployment), spec, cluster, Path(url))


def any_server() -> TopologySpec:
    """Return what a URL is taken for without ``--topology``."""
    import yaml

    return TopologySpec.model_validate(yaml.safe_load(ANY_SERVER))


def _informed(seen: DeploymentPlan, known: DeploymentPlan) -> DeploymentPlan:
    """Add what a topology file knows to what the URLs show."""
    return replace(
        seen,
        name=known.name,
        identity=known.identity,
        hardware=known.hardware,
        engine=known.engine,
        router=known.router,
        model_path=known.model_path,
        expected=known.expected,
        level=known.level,
    )


def _renamed(deployment: Deployment) -> Deployment:
    plan = deployment.plan
    return replace(deployment, plan=replace(plan, name=plan.name + SUFFIX))
