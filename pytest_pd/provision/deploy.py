"""Bring a topology up, wait until a real token has come through it, take it down."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Protocol

from pytest_pd.errors import ProvisionError, ReadyTimeout
from pytest_pd.plan.model import DeploymentPlan, Role, ServicePlan, SiteFacts
from pytest_pd.probe.completion import one_token
from pytest_pd.probe.logs import first_error, tail
from pytest_pd.probe.ready import Asker, Wait, probe_for
from pytest_pd.provision import kv_store
from pytest_pd.provision.base import Allocation, Backend, Process, RunContext
from pytest_pd.provision.deployment import Deployment, raise_if_dead
from pytest_pd.provision.identity import Identity
from pytest_pd.provision.lease import LeaseHolder, held
from pytest_pd.provision.plan_file import write_files, write_plan
from pytest_pd.provision.ports import holder_of
from pytest_pd.provision.reap import is_used, wait_lease_over
from pytest_pd.provision.rundir import RunDir, forget, remember
from pytest_pd.spec.cluster import ClusterSpec

__all__ = ["Deployment", "MakePlan", "Progress", "deploy", "silent"]

MakePlan = Callable[[SiteFacts], DeploymentPlan]
POLL_S = 0.02
SLOW_POLL_S = 0.5
POLLS = 50
FIRST_TOKEN_BUDGET_S = 120.0
REPLANS = 10


class Progress(Protocol):
    """Takes one line of live state; the caller decides how it is shown."""

    def __call__(self, line: str, /) -> None: ...


def silent(line: str, /) -> None:
    """Show no progress."""


@contextmanager
def deploy(
    make_plan: MakePlan,
    backend: Backend,
    cluster: ClusterSpec,
    context: RunContext,
    *,
    progress: Progress = silent,
    keep_s: float | None = None,
) -> Iterator[Deployment]:
    """Yield the topology, up; on every way out nothing of it is left.

    Args:
        make_plan: The plan for given facts of a site; called again once the
            allocation knows addresses and which ports are taken.
        keep_s: Leave it up for so many seconds when the block ends well.

    Raises:
        ProvisionError: it could not be brought up, in all its kinds.
    """
    begun_s = time.monotonic()
    run = RunDir(context.run_dir)
    wanted = make_plan(SiteFacts(run_dir=str(context.run_dir)))
    refuse_assumed(wanted, cluster)
    backend.check(cluster, [wanted])
    run.create()
    wait_lease_over(context.run_dir)
    with ExitStack() as stack:
        stack.callback(end_manifest, run, context)
        lease = stack.enter_context(held(context.lease, context.lease_ttl_s))
        begin_manifest(run, context, wanted, cluster, lease)
        progress(f"{wanted.name}: waiting for {len(wanted.nodes)} node(s)")
        allocation = enter(stack, backend.allocate(cluster, wanted, context))
        timings = {"allocate": time.monotonic() - begun_s}
        running = Running()
        push(stack, running.stop)
        plan = settle(make_plan, allocation, context)
        write_plan(run, plan)
        write_files(run, plan)
        clear_old_kv(plan, context, progress)
        bring_up(plan, allocation, running, timings, progress)
        first_token(plan, context, running, timings, progress)
        timings["total"] = time.monotonic() - begun_s
        run.write_manifest(url=plan.url, ready_s=time.time(), timings=timings)
        yield Deployment(
            plan,
            context.run_id,
            context.run_dir,
            dict(running.processes),
            timings,
            lease=lease,
        )
        if keep_s is not None:
            lease.keep(keep_s)
            allocation.keep()
            running.kept = True
            run.write_manifest(kept_until_s=time.time() + keep_s)


def refuse_assumed(plan: DeploymentPlan, cluster: ClusterSpec) -> None:
    """Refuse to start what was planned for hardware that is not there."""
    if plan.assumed:
        raise ProvisionError(
            f"{plan.name} is for {plan.hardware}, and cluster {cluster.name!r} is "
            f"{cluster.hardware}.",
            hint="choose another with --cluster, or --rehearse it here",
        )


def enter(stack: ExitStack, manager: object) -> Allocation:
    """Enter an allocation so that a failure to leave it hides no earlier error."""
    allocation: Allocation = manager.__enter__()  # type: ignore[attr-defined]
    push(stack, lambda: manager.__exit__(None, None, None))  # type: ignore[attr-defined]
    return allocation


def push(stack: ExitStack, undo: Callable[[], object]) -> None:
    """Add an undo whose failure becomes a note if something failed before."""

    def leave(
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            undo()
        except Exception as failure:
            if error is None:
                raise
            error.add_note(f"and while taking it down: {failure}")

    stack.push(leave)


def begin_manifest(
    run: RunDir,
    context: RunContext,
    plan: DeploymentPlan,
    cluster: ClusterSpec,
    lease: LeaseHolder,
) -> None:
    """Write who owns the run before the first process of it is started."""
    run.manifest.unlink(missing_ok=True)
    run.clear_records()
    run.write_manifest(
        run_id=context.run_id,
        topology=plan.name,
        backend=cluster.backend,
        cluster=cluster.model_dump(mode="json", exclude_unset=True),
        created_s=time.time(),
        lease_ttl_s=context.lease_ttl_s,
        harness=Identity.of(os.getpid()).record(),
        keeper=lease.identity.record(),
    )
    remember(context.run_id, context.run_dir.parent)


def end_manifest(run: RunDir, context: RunContext) -> None:
    """Write that nobody owns the topology any more, unless a keeper does."""
    manifest = run.read_manifest()
    if manifest and "kept_until_s" not in manifest:
        run.write_manifest(ended_s=time.time())
        if not is_used(context.run_dir.parent):
            forget(context.run_id)


def clear_old_kv(plan: DeploymentPlan, context: RunContext, progress: Progress) -> None:
    """Remove the KV of earlier runs from a storage that outlives runs.

    Raises:
        ProvisionError: the folder may not be cleared.
    """
    path = Path(plan.expected.kv_path or context.run_dir)
    if path.is_relative_to(context.run_dir) or not path.exists():
        return
    if removed := kv_store.clear(path):
        progress(f"{plan.name}: removed {removed} prompts of earlier runs from {path}")


def settle(
    make_plan: MakePlan, allocation: Allocation, context: RunContext
) -> DeploymentPlan:
    """Make the plan again until none of its ports is taken.

    Raises:
        ProvisionError: a port that the topology fixes is held by somebody else.
    """
    facts = SiteFacts(
        run_dir=allocation.run_dir, run_id=context.run_id, python=allocation.python
    )
    facts = replace(facts, addresses=allocation.addresses(make_plan(facts)))
    for _ in range(REPLANS):
        plan = make_plan(facts)
        busy = allocation.busy_ports(plan)
        if not busy:
            return plan
        if busy & facts.busy:
            break
        facts = replace(facts, busy=facts.busy | busy)
    node, port = min(busy)
    raise ProvisionError(
        f"Port {port} on {node} is in use by {holder_of(port)}.",
        hint="end that process (pytest-pd reap, if it is a left-over), "
        "or give the topology another port",
    )


@dataclass(slots=True)
class Running:
    """The processes started so far, and how they are taken away."""

    processes: dict[str, Process] = field(default_factory=dict)
    services: dict[str, ServicePlan] = field(default_factory=dict)
    kept: bool = False

    def stop(self) -> None:
        """Stop what nothing depends on first; what is independent side by side.

        A second Ctrl-C ends the patience: everything is killed at once.
        """
        if self.kept:
            return
        try:
            for wave in waves(self.services):
                self._stop_wave(wave)
        except KeyboardInterrupt:
            for process in self.processes.values():
                process.stop(grace_s=0.0)
            raise

    def _stop_wave(self, wave: list[str]) -> None:
        graces = [self.services[name].stop_grace_s for name in wave]
        with ThreadPoolExecutor(len(wave), thread_name_prefix="pd-stop") as pool:
            stops = [
                pool.submit(self.processes[name].stop, grace_s=grace_s)
                for name, grace_s in zip(wave, graces, strict=True)
            ]
        failures = [str(e) for stop in stops if (e := stop.exception()) is not None]
        if failures:
            raise ProvisionError(
                f"{len(failures)} service(s) could not be stopped: {failures[0]}",
                hint="pytest-pd reap",
            )


def waves(services: Mapping[str, ServicePlan]) -> list[list[str]]:
    """Group names so that everything is stopped before what it waited for."""
    left, found = dict(services), []
    while left:
        needed = {name for service in left.values() for name in service.after}
        wave = [name for name in reversed(left) if name not in needed] or [*left]
        found.append(wave)
        for name in wave:
            del left[name]
    return found


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
            open_waits = [wait for name, wait in waits.items() if name not in ready]
            hold_back_routers(open_waits, clock())
            raise_if_overdue(open_waits, running, clock())
            now_s = clock()
            progress(line_of(plan, open_waits, len(ready), now_s))
            if len(ready) < len(plan.services):
                sleep(poll_s(now_s - begun_s))


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
    if why != "asking":
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
            about = (
                f"\n  first error, of {first.service}: {first.line}" if first else ""
            )
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
            why = answer if answer not in ("asking", "no answer yet") else why
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
