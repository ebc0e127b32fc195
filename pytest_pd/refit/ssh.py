"""Run jobs on SSH hosts that share a folder: one process a host, which forks ranks."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from pytest_pd.errors import InvalidRun, PdError, ProvisionError, SpecError
from pytest_pd.provision.ssh_command import remote_command
from pytest_pd.refit import launch
from pytest_pd.refit.job import JOB_FILE, Job, Ran, lay_out, left_by
from pytest_pd.refit.local import PYTHON_VARIABLE, reports_of, worker_environment
from pytest_pd.spec.site_ssh import SshHost, SshSite

PORTS = 1000
"""Meeting points lie in a range of this many ports, by the job's folder."""


def host_words(
    job: Job,
    worker: Sequence[str],
    *,
    node: int,
    meeting_point: str,
    import_path: str,
) -> tuple[str, ...]:
    """Return what one host runs: its number, where all meet, and its ranks."""
    port = launch.DEFAULT_PORT + zlib.crc32(job.out_dir.encode()) % PORTS
    return (
        *("env", f"MASTER_ADDR={meeting_point}", f"MASTER_PORT={port}"),
        *(f"PYTHONPATH={import_path}", "PYTHONDONTWRITEBYTECODE=1"),
        *("OMP_NUM_THREADS=1", "NVSHMEM_MAX_CTAS=2", f"NODE_RANK={node}"),
        *worker,
    )


def hosts_for(job: Job, hosts: Sequence[SshHost], per_node: int) -> list[SshHost]:
    """Return the hosts that a job needs, in the inventory's order.

    Raises:
        SpecError: there are too few, with the arithmetic.
    """
    need = -(-job.world // per_node)
    if len(hosts) < need:
        raise SpecError(
            f"{job.name}: {job.world} ranks / {per_node} per host = {need} hosts; "
            f"the inventory has {len(hosts)}.",
            hint="add hosts, or raise --per-node",
        )
    return list(hosts[:need])


def run_ssh(
    jobs: Sequence[Job],
    folder: Path,
    site: SshSite,
    *,
    per_node: int = 8,
    silent_s: float = 600.0,
) -> list[Ran]:
    """Run jobs one after the other and return what they left, in order.

    The interpreter of the hosts is PD_REFIT_PYTHON, else `site.package_python`.

    Args:
        folder: On a file system that the hosts share with this machine.
        per_node: Ranks per host.
        silent_s: How long a host may say nothing.

    Raises:
        SpecError: too few hosts.
        ProvisionError: no job was done: a host does not let us in, or went away.
        InvalidRun: no rank of any job reported.
    """
    found: list[Ran | PdError] = []
    needed = [hosts_for(job, site.hosts, per_node) for job in jobs]
    for job, hosts in zip(jobs, needed, strict=True):
        started = partial(_run_on_host, job, hosts, folder, site, per_node, silent_s)
        lay_out(replace(job, rendezvous="env://"))
        try:
            with ThreadPoolExecutor(len(hosts)) as pool:
                codes = list(pool.map(started, range(len(hosts))))
            found.append(_left(job, codes))
        except (ProvisionError, InvalidRun) as error:
            found.append(error)
    return left_by(found)


def job_path(job: Job) -> Path:
    """Return where a job's file lies."""
    return Path(job.out_dir) / JOB_FILE


def _run_on_host(
    job: Job,
    hosts: Sequence[SshHost],
    folder: Path,
    site: SshSite,
    per_node: int,
    silent_s: float,
    node: int,
) -> int:
    python = os.environ.get(PYTHON_VARIABLE) or site.package_python or site.python
    words = host_words(
        job,
        launch.nursery_argv(job_path(job), per_node, python=python),
        node=node,
        meeting_point=hosts[0].address or hosts[0].host,
        import_path=worker_environment(folder)["PYTHONPATH"],
    )
    log = Path(job.out_dir) / f"host-{node}.log"
    with remote_command(site, hosts[node], words, log) as command:
        return command.wait(silent_s)


def _left(job: Job, codes: Sequence[int]) -> Ran:
    told = f"the hosts' processes ended with {list(codes)}"
    bad = next((node for node, code in enumerate(codes) if code), 0)
    log = Path(job.out_dir) / f"host-{bad}.log"
    try:
        return Ran(reports_of(job), f"{told}: see {log}." if any(codes) else "")
    except InvalidRun as error:
        raise InvalidRun(
            f"{error.fact} {told.capitalize()}.",
            hint=f"is {job.out_dir} the same folder on the hosts, and torch there?",
            where=log,
        ) from error
