"""Working inside an allocation that is there already: ``salloc``, then pytest."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pytest_pd.errors import InfrastructureLost, ProvisionError
from pytest_pd.provision.rundir import user_dir
from pytest_pd.provision.slurm_client import SlurmClient
from pytest_pd.provision.slurm_job import HeldJob
from pytest_pd.provision.slurm_step import JobHandle
from pytest_pd.provision.slurm_watch import JobWatch

WAIT_S = 3600.0
LOOK_S = 0.2


def existing_job(client: SlurmClient, watch: JobWatch, job: str) -> HeldJob:
    """Return the job that somebody else holds for us; we never cancel it.

    Raises:
        InfrastructureLost: it does not run.
    """
    handle = JobHandle(job, client, watch)
    watch.add(job)
    view = watch.view(job, now=True)
    if view.state != "RUNNING":
        raise InfrastructureLost(
            f"Slurm job {job}, which we were to run in, {view.story}.",
            hint="leave the dead allocation's shell, or unset SLURM_JOB_ID",
        )
    return HeldJob(handle, view)


@contextmanager
def claimed_nodes(
    job: str, hosts: Sequence[str], wanted: int, *, wait_s: float = WAIT_S
) -> Iterator[tuple[str, ...]]:
    """Yield nodes of the allocation that no other topology of ours uses.

    Topologies that run at the same time are processes of this machine, so a
    locked file per node keeps them apart; who finds too few waits for the others.

    Raises:
        ProvisionError: the allocation has too few nodes, or they stay taken.
    """
    if wanted > len(hosts):
        raise ProvisionError(
            f"The plan needs {wanted} nodes; Slurm job {job} has {len(hosts)}.",
            hint=f"salloc --nodes={wanted}, or choose a smaller topology",
        )
    end_s = time.monotonic() + wait_s
    with ExitStack() as stack:
        while not (mine := _claim(stack, job, hosts, wanted)):
            if time.monotonic() > end_s:
                raise ProvisionError(
                    f"Of the {len(hosts)} nodes of Slurm job {job} fewer than "
                    f"{wanted} came free within {wait_s:g} s.",
                    hint="run fewer topologies at the same time",
                )
            time.sleep(LOOK_S)
        yield mine


def _claim(
    stack: ExitStack, job: str, hosts: Sequence[str], wanted: int
) -> tuple[str, ...]:
    """Lock `wanted` nodes, or none of them."""
    folder = user_dir() / "slurm"
    folder.mkdir(exist_ok=True)
    mine: dict[str, int] = {}
    for host in hosts:
        if len(mine) < wanted and (fd := _lock(folder / f"{job}.{host}")) is not None:
            mine[host] = fd
    if len(mine) < wanted:
        for fd in mine.values():
            os.close(fd)
        return ()
    for fd in mine.values():
        stack.callback(os.close, fd)
    return tuple(mine)


def _lock(path: Path) -> int | None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd
