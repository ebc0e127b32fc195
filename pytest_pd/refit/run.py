"""From a scenario to a judged refit: make the jobs, run them, judge the reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

from pytest_pd.errors import SpecError
from pytest_pd.refit.cells import make_cells
from pytest_pd.refit.files import twin
from pytest_pd.refit.job import Job, Ran
from pytest_pd.refit.judge import Outcome, judge
from pytest_pd.refit.local import run_local
from pytest_pd.refit.names import check_names
from pytest_pd.refit.plan import chooser
from pytest_pd.refit.tensors import grids, tensor_kinds
from pytest_pd.refit.traffic import Traffic, make_traffic
from pytest_pd.spec.refit import DTYPE_BYTES, ModelShape, RefitScenario, RefitSpec


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run, apart from what; empty or None: as the scenario says."""

    engine: str = "gloo"
    planner: str = "own"
    choice: str = "nearest"
    warmup: int | None = None
    iterations: int | None = None
    timeout_s: float = 60.0
    plain: bool = False
    opinions: tuple[str, ...] = ()
    mutant: str = ""
    device: str = "cpu"


def make_job(
    name: str,
    model: ModelShape,
    scenario: RefitScenario,
    folder: Path,
    settings: Settings = Settings(),
) -> Job:
    """Return the job that runs `scenario`; reports go to `folder`.

    Raises:
        SpecError: a dtype that cannot be moved, an unknown name, too few refits.
    """
    size = DTYPE_BYTES[scenario.dtype]
    if size not in (1.0, 2.0, 4.0):
        raise SpecError(
            f"scenario {scenario.id}: {scenario.dtype} can be planned, not run.",
            hint="bf16, fp16, fp8 or fp32",
        )
    check_names(
        engine=settings.engine,
        planner=settings.planner,
        mutant=settings.mutant,
        opinions=settings.opinions,
    )
    warmup, iterations = _counts(scenario, settings)
    source, target = grids(scenario, model)
    choice = "megatron" if settings.planner == "megatron" else settings.choice
    return Job(
        name=name,
        kinds=tensor_kinds(model),
        source=source,
        target=target,
        rendezvous=f"file://{folder}/rendezvous",
        out_dir=str(folder),
        engine=settings.engine,
        planner=settings.planner,
        choice=choice,
        domain_ranks=scenario.gpus_per_node,
        element_bytes=int(size),
        warmup=warmup,
        iterations=iterations,
        timeout_s=settings.timeout_s,
        plain=settings.plain,
        opinions=settings.opinions,
        mutant=settings.mutant,
        device=settings.device,
        launch=uuid4().hex,
    )


def _counts(scenario: RefitScenario, settings: Settings) -> tuple[int, int]:
    asked = {"warmup": settings.warmup, "iterations": settings.iterations}
    for (name, count), least in zip(asked.items(), (0, 1), strict=True):
        if count is not None and count < least:
            raise SpecError(f"{name} is {count}.", hint=f"give {least} or more")
    warmup = scenario.warmup if settings.warmup is None else settings.warmup
    return warmup, settings.iterations or scenario.iterations


def twin_jobs(
    spec: RefitSpec,
    scenarios: Sequence[RefitScenario],
    size: str,
    folder: Path,
    settings: Settings = Settings(),
) -> list[Job]:
    """Return the jobs of scaled scenarios, each in a folder of its own."""
    small = twin(spec, size)
    jobs = []
    for number, scenario in enumerate(scenarios):
        scaled = scenario.scaled(tp_by=small.tp_by, ep_by=small.ep_by)
        name = f"{spec.name}/{size}/{scenario.label}"
        home = folder.resolve() / f"{number}-scenario-{scenario.label}"
        jobs.append(make_job(name, small.model, scaled, home, settings))
    return jobs


def planned_traffic(job: Job) -> Traffic:
    """Return what a job should move, from the cells and not from its transfers."""
    cells = make_cells(job.kinds, job.source, job.target)
    return make_traffic(cells, job.source, chooser(job.choice, job.domain_ranks))


def judged(job: Job, ran: Ran, *, bound_s: float | None = None) -> Outcome:
    """Judge what a job left behind against what it should have moved."""
    planned = planned_traffic(job)
    return judge(job, ran.reports, planned, bound_s=bound_s, ended=ran.ended)


def run_jobs(
    jobs: Sequence[Job], folder: Path, *, timeout_s: float = 600.0
) -> list[Outcome]:
    """Run jobs on this machine and judge them, in order."""
    jobs = [replace(job, device="cpu") for job in jobs]
    found = run_local(jobs, folder, timeout_s=timeout_s)
    return [judged(job, ran) for job, ran in zip(jobs, found, strict=True)]
