"""One eval on one running topology, from its sides to ``evals.json``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_pd.errors import InfrastructureLost
from pytest_pd.evals.baseline import Subject, find_expected, read_stores
from pytest_pd.evals.judge import AGAIN, AGGREGATED, PD, TaskResult, judge
from pytest_pd.evals.record import keep
from pytest_pd.evals.runner import Job, Side, Tick, run, samples_of
from pytest_pd.plan.model import DeploymentPlan, Role
from pytest_pd.plan.words import flag_count
from pytest_pd.probe.http import request
from pytest_pd.provision.deployment import Deployment
from pytest_pd.spec.evals import EvalFileSpec
from pytest_pd.spec.locate import Roots
from pytest_pd.spec.topology import TopologySpec

FOLDER = "evals"
MAX_LENGTH = "--max-model-len"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one eval found on one topology.

    Attributes:
        seed: That the generated documents were drawn from.
        seconds: Wall time of all sides, lm-eval's start included.
    """

    spec: EvalFileSpec
    subject: Subject
    results: Mapping[str, TaskResult]
    seed: str
    seconds: float

    def as_record(self) -> dict[str, Any]:
        """Return plain JSON values."""
        tasks = {name: result.as_record() for name, result in self.results.items()}
        return {"seed": self.seed, "seconds": round(self.seconds, 1), "tasks": tasks}


def evaluate(
    deployment: Deployment,
    topology: TopologySpec,
    spec: EvalFileSpec,
    roots: Roots,
    on_tick: Tick = lambda fact: None,
) -> Evaluation:
    """Ask all sides, judge every task, and keep it in the topology's run folder.

    Raises:
        EngineMissing: lm-eval is not here.
        InvalidRun: the samples are not whole.
    """
    plan, folder = deployment.plan, deployment.run_dir / FOLDER / spec.name
    begun_s = time.monotonic()
    job = Job(
        spec,
        model=plan.served_model,
        tokenizer=topology.model.tokenizer or plan.model_path,
        sides=sides_of(plan),
        folder=folder,
        max_tokens=flag_count(topology.engine.args, MAX_LENGTH),
        seed=seed_of(deployment, spec),
        roots=roots,
    )
    run(job, on_tick)
    subject, store = subject_of(deployment, topology), read_stores(roots)
    results = {}
    for task in spec.tasks:
        weights = Path(plan.model_path).name
        expected = find_expected(spec, task, subject, store, weights=weights)
        results[task] = judge(spec, task, samples_of(job, task), expected)
    found = Evaluation(spec, subject, results, job.seed, time.monotonic() - begun_s)
    keep(deployment.run_dir, subject, spec.name, found.as_record())
    return found


def sides_of(plan: DeploymentPlan) -> tuple[Side, ...]:
    """Return whom to ask: the router; of P/D also a worker that does both phases.

    That is an aggregated worker, else a prefill one: asked directly, it decodes from
    what it computed itself. It comes second, for what P/D is asked must not lie in
    its prefix cache. Where tokens may differ from run to run, it is asked twice.
    """
    sides = [Side(PD, plan.url)]
    if plan.of_role(Role.PREFILL) and plan.of_role(Role.DECODE):
        whole = (plan.of_role(Role.AGGREGATED) or plan.of_role(Role.PREFILL))[0]
        sides.append(Side(AGGREGATED, whole.url))
        if plan.expected.deterministic != "exact":
            sides.append(Side(AGAIN, whole.url))
    return tuple(sides)


def seed_of(deployment: Deployment, spec: EvalFileSpec) -> str:
    """Return what documents are drawn from.

    What was up before may have the same prompts in its caches, and KV that is there
    already is not handed over: then the run's id is in the seed.
    """
    fresh = f":{deployment.run_id}:{time.time_ns()}" if deployment.attached else ""
    return f"{spec.seed}{fresh}"


def subject_of(deployment: Deployment, topology: TopologySpec) -> Subject:
    """Return what the scores belong to, the engine's version as it says itself."""
    plan = deployment.plan
    return Subject(
        model=plan.served_model,
        topology=plan.name,
        hardware=plan.hardware,
        engine=f"{plan.engine} {engine_version(plan, topology)}",
    )


def engine_version(plan: DeploymentPlan, topology: TopologySpec) -> str:
    """Return what a worker answers to ``/version``, else what its file asks for."""
    workers = [e for e in plan.endpoints if e.role is not Role.ROUTER]
    for worker in workers[:1]:
        try:
            said = request(f"{worker.url}/version").json()
        except InfrastructureLost:
            break
        if isinstance(said, dict) and said.get("version"):
            return str(said["version"])
    return topology.engine.version or "unknown"
