"""A job of ours from submission to its end, or the allocation we stand in."""

from __future__ import annotations

import logging
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pytest_pd.errors import InfrastructureLost, PdError, ProvisionError
from pytest_pd.provision.slurm_client import SlurmClient
from pytest_pd.provision.slurm_step import JobHandle
from pytest_pd.provision.slurm_text import (
    JobRequest,
    JobView,
    batch_argv,
    batch_script,
    client_env,
    watchman_script,
)
from pytest_pd.provision.slurm_watch import JobWatch
from pytest_pd.spec.site_slurm import SlurmSite

LOG = logging.getLogger(__name__)
RELEASE_S = 3.0
END_S = 60.0
NEVER = (
    "PartitionNodeLimit",
    "PartitionTimeLimit",
    "BadConstraints",
    "InvalidAccount",
    "InvalidQOS",
    "DependencyNeverSatisfied",
    "PerJobLimit",
)
"""Reasons that time does not cure; ``...PerJobLimit`` are limits of QOS and account."""


@contextmanager
def watchman(request: JobRequest) -> Iterator[subprocess.Popen[bytes]]:
    """Run the script that cancels the job if this process dies in the block."""
    popen = subprocess.Popen(
        ["/bin/sh", "-c", watchman_script(request)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=client_env(os.environ),
        start_new_session=True,
    )
    try:
        yield popen
    finally:
        if popen.poll() is None:
            os.killpg(popen.pid, 9)
            popen.wait()


def wait_running(
    handle: JobHandle, site: SlurmSite, partition: str, began_s: float | None = None
) -> JobView:
    """Wait until the job runs; tell why it waits and where it stands.

    Raises:
        ProvisionError: it waits for something that will not come, or the queue
            budget is over.
        InfrastructureLost: it ended before it ran.
    """
    end_s = (began_s or time.monotonic()) + site.queue_budget_s
    told = ""
    while True:
        view = handle.watch.view(handle.job)
        if view.state == "RUNNING":
            return view
        if view.over:
            raise InfrastructureLost(
                f"Slurm job {handle.job} {view.story} before it started."
            )
        if view.reason.endswith(NEVER):
            raise ProvisionError(
                f"Slurm job {handle.job} would wait for ever: {view.reason}.",
                hint="correct the slurm section of the cluster file",
            )
        if time.monotonic() > end_s:
            raise ProvisionError(
                f"Slurm job {handle.job} did not start within "
                f"{site.queue_budget_s:g} s: {waiting(handle, view, partition)}.",
                hint="raise slurm.queue_budget_s, or choose another partition",
            )
        told = tell(handle, view, partition, told)
        time.sleep(min(0.5, max(0.02, handle.watch.due_in_s())))


def tell(handle: JobHandle, view: JobView, partition: str, told: str) -> str:
    """Log why the job waits, each reason once; returns the reason told last."""
    if view.state == "PENDING" and view.reason not in ("", "None", told):
        LOG.warning("Slurm job %s: %s", handle.job, waiting(handle, view, partition))
        return view.reason
    return told


def waiting(handle: JobHandle, view: JobView, partition: str) -> str:
    """Return ``pending for Resources, 2 of 5 in 'batch', start 2026-...``."""
    place = handle.client.position(handle.job, partition)
    text = f"{view.state.lower()} for {view.reason}"
    if place:
        text += f", {place[0]} of {place[1]} in {partition!r}"
    return text + (f", expected start {view.start}" if view.start != "N/A" else "")


def end_job(handle: JobHandle) -> None:
    """End the job and wait until nothing of it is left but what the site does then.

    Raises:
        ProvisionError: Slurm does not get rid of it.
    """
    if handle.watch.view(handle.job).state == "RUNNING":
        handle.client.release(handle.job)
        over = wait_over(handle, RELEASE_S)
    else:
        over = False
    if not over:
        handle.client.cancel(handle.job)
        over = wait_over(handle, END_S)
    cleaned = over or is_cleaned(handle)
    handle.watch.drop(handle.job)
    if not over and cleaned:
        LOG.warning(
            "Slurm job %s is COMPLETING for more than %g s with no step left: the "
            "site's epilog still runs on its nodes",
            *(handle.job, END_S),
        )
    elif not over:
        raise ProvisionError(
            f"Slurm job {handle.job} is still there {END_S:g} s after scancel.",
            hint=f"`scontrol show job {handle.job}` shows the node that hangs",
        )


def is_cleaned(handle: JobHandle) -> bool:
    """Tell whether a job that ends has no step any more: an epilog keeps its nodes."""
    if handle.watch.view(handle.job, now=True).state != "COMPLETING":
        return False
    steps = handle.client.steps(handle.job)
    return steps is not None and not any(map(is_service, steps.values()))


def is_service(step: str) -> bool:
    """Tell a step of ours, ``7.0``, from Slurm's own, ``7.batch``, ``7.extern``."""
    return step.rpartition(".")[2].isdigit()


def wait_over(handle: JobHandle, seconds: float) -> bool:
    """Ask, ever more rarely, until the job is over; returns whether it is."""
    pause_s, end_s = 0.05, time.monotonic() + seconds
    while not handle.watch.view(handle.job, now=True).over:
        if time.monotonic() > end_s:
            return False
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.6, 3.0)
    return True


class HeldJob:
    """The holder job of one topology."""

    def __init__(self, handle: JobHandle, view: JobView) -> None:
        self.handle = handle
        self.view = view
        self.kept = False


@contextmanager
def held_job(
    client: SlurmClient,
    watch: JobWatch,
    site: SlurmSite,
    request: JobRequest,
    partition: str,
) -> Iterator[HeldJob]:
    """Yield a running job; cancelled on every way out unless it is kept."""
    with watchman(request) as guard:
        job = submitted(client, site, request)
        handle = JobHandle(job, client, watch)
        watch.add(handle.job)
        held: HeldJob | None = None
        try:
            held = HeldJob(handle, wait_running(handle, site, partition))
            yield held
        finally:
            if held and held.kept:
                guard.returncode = 0  # it guards the job for as long as the lease
            else:
                end_job(handle)


def submitted(client: SlurmClient, site: SlurmSite, request: JobRequest) -> str:
    """Submit the holder job; without an answer, cancel what Slurm may have taken.

    Raises:
        ProvisionError: Slurm refuses it, or does not answer.
    """
    try:
        return client.submit(batch_argv(site, request), batch_script(request))
    except BaseException as error:
        # nobody knows its id; a controller that is busy takes it a moment later
        for pause_s in (0, 1, 1) if is_open(error) else (0,):
            time.sleep(pause_s)
            client.cancel_named(request.name)
        raise


def is_open(error: BaseException) -> bool:
    """Whether Slurm may have taken the job all the same: it did not refuse it."""
    return isinstance(error, InfrastructureLost) or not isinstance(error, PdError)


def allocation_around(site: SlurmSite) -> str | None:
    """Return the job that we are told to use, or stand in; None for our own."""
    if site.job_id:
        return site.job_id
    return os.environ.get("SLURM_JOB_ID") if site.inside_allocation else None
