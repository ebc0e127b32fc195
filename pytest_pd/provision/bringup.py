"""Start what may start, look at everything, wait: one loop owns the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from pytest_pd.errors import ReadyTimeout
from pytest_pd.plan.model import DeploymentPlan, Role
from pytest_pd.probe.completion import one_token
from pytest_pd.probe.logs import first_error, tail
from pytest_pd.probe.ready import PENDING, Asker, Wait, probe_for
from pytest_pd.provision.base import Allocation, RunContext
from pytest_pd.provision.deployment import raise_if_dead
from pytest_pd.provision.running import Running

POLL_S = 0.02
SLOW_POLL_S = 0.5
POLLS = 50
FIRST_TOKEN_BUDGET_S = 120.0


class Progress(Protocol):
    """Takes one line of live state; the caller decides how it is shown."""

    def __call__(self, line: str, /) -> None: ...


def bring_up(
    plan: DeploymentPlan,
    allocation: Allocation,
    running: Running,
    timings: dict[str, float],
    progress: Progress,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Start every service once what it waits for is ready; return when all are.

    Raises:
        ProcessDied: one ended, whatever its code; noticed within one poll.
        ReadyTimeout: one used up its budget or shows no progress.
    """
    begun_s = clock()
    waits: dict[str, Wait] = {}
    ready: set[str] = set()
    with Asker() as asker:
        while len(ready) < len(plan.services):
            start_startable(plan, allocation, running, ready, waits, clock())
            raise_if_dead(running.processes, "before the topology was ready")
            for name in [name for name in waits if name not in ready]:
                if is_ready(waits[name], asker, clock()):
                    ready.add(name)
                    timings[f"ready:{name}"] = clock() - begun_s
                    timings |= stage_timings(waits[name])
            open_waits = [wait for name, wait in waits.items() if name not in ready]
            hold_back_routers(open_waits, clock())
            raise_if_overdue(open_waits, running, clock())
            now_s = clock()
            progress(line_of(plan, open_waits, len(ready), now_s))
            if len(ready) < len(plan.services):
                sleep(poll_s(now_s - begun_s))


def stage_timings(wait: Wait) -> dict[str, float]:
    """Return ``stage:<service>:<stage>`` to seconds since that service started."""
    name = wait.service.name
    return {f"stage:{name}:{stage}": s for stage, s in wait.stages_s.items()}


def poll_s(waited_s: float) -> float:
    """Return how long to sleep: a little of what was waited already."""
    return min(max(POLL_S, waited_s / POLLS), SLOW_POLL_S)


def start_startable(
    plan: DeploymentPlan,
    allocation: Allocation,
    running: Running,
    ready: set[str],
    waits: dict[str, Wait],
    now_s: float,
) -> None:
    """Start every service that waits for nothing any more."""
    for service in plan.services:
        if service.name in waits or not ready.issuperset(service.after):
            continue
        process = allocation.start(service)
        running.processes[service.name] = process
        running.services[service.name] = service
        probe = probe_for(service.ready, process.log)
        waits[service.name] = Wait(service, process, probe, now_s, now_s)


def is_ready(wait: Wait, asker: Asker, now_s: float) -> bool:
    """Look at one service once."""
    wait.look(now_s)
    why = asker.ask(wait.service.name, wait.probe)
    if why is None:
        return True
    if why not in PENDING:
        wait.why = why
    return False


def hold_back_routers(waits: list[Wait], now_s: float) -> None:
    """Start a router's clock when all it waits for is ready.

    A router may live minutes before the workers have loaded their weights; its
    budget is for what it does itself.
    """
    if all(wait.service.role is Role.ROUTER for wait in waits):
        return
    for wait in waits:
        if wait.service.role is Role.ROUTER:
            wait.started_s = wait.moved_s = now_s


def raise_if_overdue(waits: list[Wait], running: Running, now_s: float) -> None:
    """Raise `ReadyTimeout` for the first service that waiting is over for."""
    for wait in waits:
        if why := wait.overdue(now_s):
            logs = {name: process.log for name, process in running.processes.items()}
            first = first_error(logs)
            about = f"\n  {first}" if first else ""
            ends = "".join(f"\n    {line}" for line in tail(wait.process.log, 10))
            raise ReadyTimeout(
                f"{wait.service.name!r} {why} (last answer: {wait.why}; "
                f"last stage: {wait.stage or 'none'}).{about}\n  its log ends:{ends}",
                hint=(first.cause if first else "")
                or "raise the budget for readiness in the topology, "
                "or look for a stuck load",
                where=wait.process.log,
            )


def line_of(plan: DeploymentPlan, waits: list[Wait], ready: int, now_s: float) -> str:
    """Return one line: how far, and what the slowest service waits for."""
    head = f"{plan.name}: {ready}/{len(plan.services)} ready"
    if not waits:
        return head
    slowest = min(waits, key=lambda wait: wait.started_s)
    return f"{head}; {slowest.describe(now_s)}"


def first_token(
    plan: DeploymentPlan,
    context: RunContext,
    running: Running,
    timings: dict[str, float],
    progress: Progress,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until one real token has come through the router.

    Raises:
        ProcessDied: a service ended meanwhile.
        ReadyTimeout: no token came within the budget; with the router's answer.
    """
    begun_s, why = clock(), "asked, no answer yet"
    with Asker(1) as asker:
        while True:
            answer = asker.ask(
                plan.url,
                lambda: one_token(plan.url, plan.served_model, salt=context.run_id),
            )
            if answer is None:
                break
            why = answer if answer not in PENDING else why
            raise_if_dead(running.processes, "before the first token came")
            if clock() - begun_s > FIRST_TOKEN_BUDGET_S:
                raise ReadyTimeout(
                    f"Every service is ready, but no token came through {plan.url} "
                    f"within {FIRST_TOKEN_BUDGET_S:g} s: {why}.",
                    hint="read the router's log: does it know its workers?",
                    where=context.run_dir,
                )
            progress(f"{plan.name}: first token {clock() - begun_s:.0f} s ({why})")
            sleep(poll_s(clock() - begun_s))
    timings["first_token"] = clock() - begun_s
