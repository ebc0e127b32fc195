"""Bring a topology up, wait until a real token has come through it, take it down."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType

from pytest_pd.errors import ProvisionError, SpecError
from pytest_pd.plan.model import DeploymentPlan, SiteFacts
from pytest_pd.probe.evidence import write_snapshot
from pytest_pd.provision.base import (
    Allocation,
    Backend,
    Diagnoses,
    RunContext,
    reach_of,
)
from pytest_pd.provision.bringup import Progress, bring_up, first_token
from pytest_pd.provision.deployment import (
    Deployment,
    secrets_of_plan,
    told_without,
)
from pytest_pd.provision.identity import Identity
from pytest_pd.provision.kv_store import StoreLock
from pytest_pd.provision.lease import LeaseHolder, held
from pytest_pd.provision.plan_file import write_files, write_plan
from pytest_pd.provision.ports import holder_of
from pytest_pd.provision.progress import waiting_shown
from pytest_pd.provision.reap import is_used, wait_lease_over
from pytest_pd.provision.rundir import RunDir, forget, remember
from pytest_pd.provision.running import Running
from pytest_pd.secret import redact
from pytest_pd.spec.cluster import ClusterSpec

__all__ = ["Deployment", "MakePlan", "Progress", "deploy", "silent"]

MakePlan = Callable[[SiteFacts], DeploymentPlan]
REPLANS = 10
PAGE_TIMEOUT_S = 2.0


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
        store = store_of(wanted, context)
        stack.callback(store.close)
        lease = stack.enter_context(held(context.lease, context.lease_ttl_s, store.fds))
        begin_manifest(run, context, wanted, cluster, lease)
        progress(f"{wanted.name}: waiting for {len(wanted.nodes)} node(s)")
        with waiting_shown(progress):
            allocation = enter(stack, backend.allocate(cluster, wanted, context), run)
        timings = {"allocate": time.monotonic() - begun_s}
        running = Running()
        push(stack, running.stop)
        plan = settle(make_plan, allocation, context)
        write_plan(run, plan)
        write_files(run, plan)
        clear_old_kv(plan.name, store, run, progress)
        start(plan, context, allocation, running, timings, progress)
        store.share()
        timings["total"] = time.monotonic() - begun_s
        plan = running.pinned(plan)
        write_plan(run, plan)
        run.write_manifest(url=plan.url, ready_s=time.time(), timings=timings)
        deployment = handle_of(plan, context, running, timings, lease, allocation)
        save_metrics(run, deployment, "ready")
        push(stack, partial(save_metrics, run, deployment, "end"))
        yield deployment
        if keep_s is not None:
            lease.keep(keep_s)
            allocation.keep()
            running.kept = True
            run.write_manifest(kept_until_s=time.time() + keep_s)


def start(
    plan: DeploymentPlan,
    context: RunContext,
    allocation: Allocation,
    running: Running,
    timings: dict[str, float],
    progress: Progress,
) -> None:
    """Bring everything up until a real token came through, telling no secret of it."""
    hidden = secrets_of_plan(plan)

    def tell(line: str, /) -> None:
        progress(redact(line, hidden))

    with told_without(hidden), explained(plan, allocation):
        bring_up(plan, allocation, running, timings, tell)
        first_token(plan, context, running, timings, tell)


def handle_of(
    plan: DeploymentPlan,
    context: RunContext,
    running: Running,
    timings: dict[str, float],
    lease: LeaseHolder,
    allocation: Allocation,
) -> Deployment:
    """Return what tests use a deployment by."""
    return Deployment(
        plan,
        context.run_id,
        context.run_dir,
        MappingProxyType(running.processes),
        timings,
        lease=lease,
        allocation=allocation,
        revive=partial(running.revive, allocation),
    )


@contextmanager
def explained(plan: DeploymentPlan, allocation: object) -> Iterator[None]:
    """Add to a failure the troubles that the allocation finds and has a name for."""
    try:
        yield
    except ProvisionError as error:
        if isinstance(allocation, Diagnoses):
            found = allocation.diagnose(plan)
            error.fact = "\n  ".join([error.fact, *found])
        raise


def save_metrics(run: RunDir, deployment: Deployment, when: str) -> None:
    """Keep what every service says of itself; one that is gone says nothing."""
    write_snapshot(
        deployment.evidence(timeout_s=PAGE_TIMEOUT_S),
        partial(run.metrics, when=when),
        secrets_of_plan(deployment.plan),
    )


def refuse_assumed(plan: DeploymentPlan, cluster: ClusterSpec) -> None:
    """Refuse to start what was planned for hardware that is not there."""
    if plan.assumed:
        raise ProvisionError(
            f"{plan.name} is for {plan.hardware}, and cluster {cluster.name!r} is "
            f"{cluster.hardware}.",
            hint="choose another with --cluster, or --rehearse it here",
        )


def enter(
    stack: ExitStack, manager: AbstractContextManager[Allocation], run: RunDir
) -> Allocation:
    """Enter an allocation so that a failure to leave it hides no earlier error."""

    def leave() -> None:
        try:
            manager.__exit__(None, None, None)
        except BaseException as failure:  # Ctrl-C as well
            why = str(failure) or type(failure).__name__
            with suppress(OSError):  # the failure tells more
                run.write_manifest(not_ended=why)  # `reap` tries it again
            raise

    allocation = manager.__enter__()
    push(stack, leave)
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


def store_of(plan: DeploymentPlan, context: RunContext) -> StoreLock:
    """Return the lock of a storage that outlives runs; of none, where there is none.

    Raises:
        ProvisionError: the folder may not be cleared.
    """
    path = Path(plan.expected.kv_path or context.run_dir)
    return StoreLock(None if path.is_relative_to(context.run_dir) else path)


def clear_old_kv(name: str, store: StoreLock, run: RunDir, progress: Progress) -> None:
    """Remove the KV of earlier runs, unless a run that is up uses it; then use it.

    Raises:
        ProvisionError: it cannot be removed.
    """
    if why := store.taken():
        run.write_manifest(kv_not_cleared=why)
        progress(f"{name}: the KV in {store.path} is not cleared: {why}")
    elif removed := store.clear():
        progress(f"{name}: removed {removed} prompts of earlier runs from {store.path}")
    store.share()


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
    first = make_plan(facts)
    facts = replace(
        facts,
        addresses=allocation.addresses(first),
        reach=reach_of(allocation, first),
    )
    busy: frozenset[tuple[str, int]] = frozenset()
    refusal: SpecError | None = None
    for _ in range(REPLANS):
        try:
            plan = make_plan(facts)
        except SpecError as error:
            # the plan may not choose another port: the topology fixes this one
            if not busy:
                raise
            refusal = error
            break
        busy = allocation.busy_ports(plan)
        if not busy:
            return plan
        if busy & facts.busy:
            break
        facts = replace(facts, busy=facts.busy | busy)
    raise port_taken(busy, refusal) from refusal


def port_taken(
    busy: frozenset[tuple[str, int]], refusal: SpecError | None
) -> ProvisionError:
    """Return the error for a port that cannot be moved: the one that was refused."""
    said = refusal.fact if refusal else ""
    node, port = min(busy, key=lambda each: (f" {each[1]} " not in said, each))
    return ProvisionError(
        f"Port {port} on {node} is in use by {holder_of(port)}.",
        hint="end that process (pytest-pd reap, if it is a left-over), "
        "or give the topology another port",
    )
