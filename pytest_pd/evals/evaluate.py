"""One eval on one running topology, from its sides to ``evals.json``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_pd.errors import InfrastructureLost, PdError, SpecError
from pytest_pd.evals.baseline import Subject, find_expected, read_stores
from pytest_pd.evals.catalogue import missing
from pytest_pd.evals.judge import AGAIN, AGGREGATED, PD, TaskResult, judge
from pytest_pd.evals.record import FOLDER, keep
from pytest_pd.evals.runner import Job, Side, Tick, run, samples_of
from pytest_pd.evals.stored import find_stored
from pytest_pd.plan.model import DeploymentPlan, Role
from pytest_pd.plan.words import flag_count
from pytest_pd.probe.http import request
from pytest_pd.probe.served import first_served
from pytest_pd.provision.deployment import Deployment
from pytest_pd.spec.evals import EvalFileSpec
from pytest_pd.spec.locate import Roots
from pytest_pd.spec.topology import TopologySpec

MAX_LENGTH = "--max-model-len"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one eval found on one topology.

    Attributes:
        results: By task: what the gates say, or why nothing can be said.
        left_out: Task to the facts that it needs and the topology lacks.
        seed: That the generated documents were drawn from.
        seconds: Wall time of all sides, lm-eval's start included.
    """

    spec: EvalFileSpec
    subject: Subject
    results: Mapping[str, TaskResult | PdError]
    left_out: Mapping[str, tuple[str, ...]]
    seed: str
    seconds: float

    def as_record(self) -> dict[str, Any]:
        """Return plain JSON values."""
        tasks = {name: as_record(result) for name, result in self.results.items()}
        return {"seed": self.seed, "seconds": round(self.seconds, 1), "tasks": tasks}


def as_record(result: TaskResult | PdError) -> dict[str, Any]:
    """Return plain JSON values of one task: what its gates say, or why nothing."""
    if isinstance(result, PdError):
        return {"error": result.fact}
    return result.as_record()


def evaluate(
    deployment: Deployment,
    topology: TopologySpec,
    wanted: EvalFileSpec,
    roots: Roots,
    *,
    facts: Mapping[str, bool],
    on_tick: Tick = lambda fact: None,
) -> Evaluation:
    """Ask all sides, judge every task, and keep it in the topology's run folder.

    Args:
        facts: What the topology has; tasks that need more are left out.

    Raises:
        EngineMissing: lm-eval is not here.
        InvalidRun: lm-eval did not come to its end.
    """
    spec, left_out = fitting(wanted, facts)
    plan, folder = deployment.plan, deployment.run_dir / FOLDER / spec.name
    begun_s = time.monotonic()
    subject, store = subject_of(deployment, topology), read_stores(roots)
    sides, stored = sides_of(plan, workers_answer=facts["workers_answer"]), {}
    if spec.against == "stored" and is_split(plan):
        sides, stored = sides[:1], {AGGREGATED: find_stored(roots, subject, spec.name)}
    job = Job(
        spec,
        model=plan.served_model,
        tokenizer=topology.model.tokenizer or plan.model_path,
        sides=sides,
        folder=folder,
        max_tokens=served_length(plan.url)
        or flag_count(topology.engine.args, MAX_LENGTH),
        seed=seed_of(deployment, spec),
        roots=roots,
        stored=stored,
    )
    run(job, on_tick)
    weights = Path(plan.model_path).name
    results: dict[str, TaskResult | PdError] = {}
    for task in spec.tasks:
        expected = find_expected(spec, task, subject, store, weights=weights)
        try:
            results[task] = judge(
                spec, task, samples_of(job, task), expected, exact=is_exact(plan)
            )
        except PdError as error:  # the other tasks have their samples
            results[task] = error
    took_s = time.monotonic() - begun_s
    found = Evaluation(spec, subject, results, left_out, job.seed, took_s)
    keep(deployment.run_dir, subject, spec.name, found.as_record())
    return found


def fitting(
    spec: EvalFileSpec, facts: Mapping[str, bool]
) -> tuple[EvalFileSpec, dict[str, tuple[str, ...]]]:
    """Return the eval without tasks that need what is not there, and what that is.

    Raises:
        SpecError: no task is left, or a need is no fact.
    """
    lacks = {name: missing(task.needs, facts) for name, task in spec.tasks.items()}
    left_out = {name: facts for name, facts in lacks.items() if facts}
    kept = {name: task for name, task in spec.tasks.items() if name not in left_out}
    if not kept:
        raise SpecError(
            f"Every task of eval {spec.name!r} needs what this topology has not.",
            hint=f"missing: {', '.join(sorted(set().union(*left_out.values())))}",
        )
    return spec.model_copy(update={"tasks": kept}), left_out


def is_split(plan: DeploymentPlan) -> bool:
    """Whether prefill and decode are workers of their own."""
    return bool(plan.of_role(Role.PREFILL) and plan.of_role(Role.DECODE))


def sides_of(plan: DeploymentPlan, *, workers_answer: bool) -> tuple[Side, ...]:
    """Return whom to ask: the router; of P/D also a worker that does both phases.

    That is an aggregated worker, else a prefill one: asked directly, it decodes from
    what it computed itself. It comes second, for what P/D is asked must not lie in
    its prefix cache. Where tokens may differ from run to run, it is asked twice.

    Args:
        workers_answer: False where workers have no API: only stored samples can then
            be the other side.
    """
    sides = [Side(PD, plan.url)]
    if workers_answer and is_split(plan):
        whole = (plan.of_role(Role.AGGREGATED) or plan.of_role(Role.PREFILL))[0]
        sides.append(Side(AGGREGATED, whole.url))
        if not is_exact(plan):
            sides.append(Side(AGAIN, whole.url))
    return tuple(sides)


def is_exact(plan: DeploymentPlan) -> bool:
    """Whether the same prompt has the same tokens at every call."""
    return plan.expected.deterministic == "exact"


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


def served_length(url: str) -> int | None:
    """Return the tokens of prompt and answer that a server takes, if it says so.

    lm-eval cuts prompts at 2,047 tokens where nobody tells it.
    """
    try:
        found = first_served(url).get("max_model_len")
    except InfrastructureLost:
        return None
    return found if isinstance(found, int) else None


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
