"""Which planner, engine and clock a job means, with a mutant put in their place."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import cast

from pytest_pd.refit import choice
from pytest_pd.refit.job import Job
from pytest_pd.refit.names import ENGINES, PLANNERS
from pytest_pd.refit.transfer import Planner, Transfer
from pytest_pd.refit.worker.engine import Engine
from pytest_pd.refit.worker.probe import Clock

Lister = Callable[[int], Iterable[Transfer]]


@dataclass(slots=True)
class Parts:
    """What a rank works with; a mutant replaces one of them."""

    transfers: Lister
    engine: Engine
    clock: Clock


def named(table: dict[str, str], name: str) -> Callable[..., object]:
    """Import what `name` stands for, or ``module:attribute`` itself."""
    module, _, attribute = table.get(name, name).partition(":")
    return cast(Callable[..., object], getattr(import_module(module), attribute))


def own_transfers(job: Job, rank: int | None) -> Iterable[Transfer]:
    """List the transfers that touch `rank`, or all, by the planner of this package."""
    policy = (
        choice.megatron
        if job.choice == "megatron"
        else choice.nearest(job.domain_ranks)
    )
    return Planner(job.kinds, job.source, job.target, policy).transfers(rank)


def parts_of(job: Job, rank: int) -> Parts:
    """Return planner, engine and clock of one rank."""
    lister = cast(
        Callable[[Job, int], Iterable[Transfer]], named(PLANNERS, job.planner)
    )
    parts = Parts(
        transfers=lambda which: lister(job, which),
        engine=cast(Engine, named(ENGINES, job.engine)()),
        clock=time.perf_counter_ns,
    )
    if job.mutant:
        from pytest_pd.refit.worker.mutant import MUTANTS

        MUTANTS[job.mutant](job, rank, parts)
    return parts
