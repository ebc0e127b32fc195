"""Use a deployment that is up already: by the id of its run, or by its URL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pytest_pd.errors import InfrastructureLost, ProvisionError
from pytest_pd.plan.model import (
    DeploymentPlan,
    Endpoint,
    ExpectedEvidence,
    NodePlan,
    Role,
)
from pytest_pd.probe.served import first_served
from pytest_pd.provision.base import Process
from pytest_pd.provision.deployment import Deployment
from pytest_pd.provision.local import LocalProcess
from pytest_pd.provision.plan_file import read_plan
from pytest_pd.provision.reap import mark_prefix, owner_of
from pytest_pd.provision.rundir import RunDir, find_run, id_of, topologies_of

TELLS_ITSELF = ("vllm",)
"""Engines that ``/v1/models`` names as the owner of their models."""


def attach_run(run_id: str, *, root: Path, topology: str | None = None) -> Deployment:
    """Return the deployment that a run has left up.

    Args:
        run_id: Id of the run, or the beginning of it.
        root: Folder of runs, ``runs`` as a rule.
        topology: Which of the run's topologies; needed where it has several.

    Raises:
        ProvisionError: there is no such run, or it is not up any more.
        ProcessDied: some of its services have ended since.
    """
    run = find_run(run_id, root=root)
    folder = choose(run, topology)
    plan = read_plan(folder)
    if not owner_of(folder):
        raise ProvisionError(
            f"Run {id_of(run)!r} is not up any more: nobody holds its lease.",
            hint=f"pytest-pd up {plan.name} --for 2h",
            where=folder.path,
        )
    deployment = Deployment(
        plan,
        id_of(run),
        folder.path,
        processes_of(folder, plan),
        folder.read_manifest().get("timings", {}),
        attached=True,
    )
    deployment.check_alive()
    return deployment


def choose(run: Path, topology: str | None) -> RunDir:
    """Return the one topology folder of a run that is meant.

    Raises:
        ProvisionError: there is none such, or several and none was named.
    """
    folders = topologies_of(run)
    named = [
        f for f in folders if topology in (None, f.read_manifest().get("topology"))
    ]
    up = [f for f in named if owner_of(f)] or named
    if len(up) == 1:
        return up[0]
    known = ", ".join(str(f.read_manifest().get("topology")) for f in folders)
    raise ProvisionError(
        f"Run {id_of(run)!r} has {len(up)} topologies"
        + (f" called {topology!r}." if topology else "."),
        hint=f"name one of: {known}",
    )


def processes_of(run: RunDir, plan: DeploymentPlan) -> Mapping[str, Process]:
    """Return handles of a run's services on this machine; none for other backends."""
    if run.read_manifest().get("backend", "local") != "local":
        return {}
    return {
        service.name: LocalProcess(
            service.name,
            run.path / service.log,
            run,
            mark=mark_prefix(run) + service.name,
        )
        for service in plan.services
    }


def attach_url(
    url: str, *, prefill: Sequence[str] = (), decode: Sequence[str] = ()
) -> Deployment:
    """Return a deployment of which only URLs are known.

    Args:
        url: Base URL that clients use.
        prefill, decode: Base URLs of the workers, for their metrics.

    Raises:
        ProvisionError: nobody answers there, or what answers serves no model.
    """
    url = url.rstrip("/")
    model, root, engine = served_model(url)
    plan = plan_of_urls(url, model, prefill, decode)
    return Deployment(
        replace(plan, model_path=root, engine=engine),
        "attached",
        Path.cwd(),
        attached=True,
    )


def served_model(url: str) -> tuple[str, str, str]:
    """Ask ``/v1/models`` for the first model: name, path if it is told, engine.

    Raises:
        ProvisionError: no answer, or none that names a model.
    """
    try:
        model = first_served(url)
    except InfrastructureLost as error:
        raise ProvisionError(
            f"Nothing to attach to: {error.fact}.",
            hint="give a base URL such as http://127.0.0.1:8000, or a run id",
        ) from error
    if not model:
        raise ProvisionError(
            f"{url}/v1/models names no model.",
            hint="is that the base URL of an OpenAI API?",
        )
    engine = str(model.get("owned_by"))
    told = engine if engine in TELLS_ITSELF else "unknown"
    return str(model["id"]), str(model.get("root") or ""), told


def plan_of_urls(
    url: str, model: str, prefill: Sequence[str], decode: Sequence[str]
) -> DeploymentPlan:
    """Return a plan that says no more than the URLs do."""
    roles = ((Role.PREFILL, prefill), (Role.DECODE, decode))
    endpoints = [Endpoint("router", Role.ROUTER, url, metrics_url=f"{url}/metrics")]
    for role, urls in roles:
        bases = [each.rstrip("/") for each in urls]
        endpoints += [
            Endpoint(f"{role.value}-{n}", role, base, metrics_url=f"{base}/metrics")
            for n, base in enumerate(bases)
        ]
    return DeploymentPlan(
        name="attached",
        identity="",
        hardware="unknown",
        engine="unknown",
        router="unknown",
        served_model=model,
        model_path="",
        nodes=(NodePlan("node0", url, 0, 0),),
        services=(),
        endpoints=tuple(endpoints),
        expected=ExpectedEvidence(
            None, None, "none", whole_blocks=True, deterministic="floor"
        ),
        notes=("attached by URL: nothing else is known of it",),
    )
