"""Run jobs under Slurm: one Slurm job per refit, its reports in a shared folder."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from math import ceil
from pathlib import Path

from pytest_pd.errors import BackendMissing, InvalidRun, PdError
from pytest_pd.refit import launch
from pytest_pd.refit.job import Job, Ran, lay_out, left_by
from pytest_pd.refit.local import reports_of, worker_environment, worker_python


def srun_argv(
    job: Job,
    worker: Sequence[str],
    *,
    import_path: str,
    per_node: int,
    time_min: int,
    extra: Sequence[str],
) -> tuple[str, ...]:
    """Return a job of its own for a CPU refit: a task per node, which forks its ranks.

    ``srun`` without an allocation makes one and gives it back when it ends, also
    when it is killed.
    """
    nodes = -(-job.world // per_node)
    return (
        *("srun", "--mpi=none", "--kill-on-bad-exit=1", f"--nodes={nodes}"),
        *("--ntasks-per-node=1", f"--cpus-per-task={min(per_node, job.world)}"),
        *(f"--time={time_min}", f"--job-name=pd-refit-{Path(job.out_dir).name}"),
        *extra,
        *("bash", "-c", launch.task_script(worker, import_path=import_path)),
    )


def run_slurm(
    jobs: Sequence[Job],
    folder: Path,
    *,
    per_node: int = 8,
    timeout_s: float = 600.0,
    extra: Sequence[str] = (),
) -> list[Ran]:
    """Submit jobs, wait for all of them, and return what they left, in order.

    Args:
        folder: On a file system that the nodes share.
        per_node: Ranks per node.
        timeout_s: For all jobs together, time in the queue included.
        extra: More flags for srun, such as the partition.

    Raises:
        BackendMissing: no srun here.
        InvalidRun: no rank of any job reported in time.
    """
    python = worker_python()
    home = worker_environment(folder)["PYTHONPATH"]
    with ExitStack() as stack:
        waiting = []
        for job in jobs:
            path = lay_out(replace(job, rendezvous="env://"))
            argv = srun_argv(
                job,
                launch.nursery_argv(path, per_node, python=python),
                import_path=home,
                per_node=per_node,
                time_min=max(1, ceil(timeout_s / 60)),
                extra=extra,
            )
            waiting.append(stack.enter_context(_running(argv, path.parent)))
        until = time.monotonic() + timeout_s
        codes = [_code(popen, until) for popen in waiting]
    pairs = zip(jobs, codes, strict=True)
    return left_by([_left(job, code, timeout_s) for job, code in pairs])


def _code(popen: subprocess.Popen[bytes], until: float) -> int | None:
    """Return how it ended; None if it did not before `until`."""
    try:
        return popen.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        return None


@contextmanager
def _running(argv: Sequence[str], out: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (out / "srun.log").open("wb") as sink:
        try:
            popen = subprocess.Popen(
                argv,
                cwd=out,
                env={k: v for k, v in os.environ.items() if k != "GLOO_SOCKET_IFNAME"},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        except FileNotFoundError as error:
            raise BackendMissing(
                "there is no srun on PATH.", hint="run on a login node of the cluster"
            ) from error
    try:
        yield popen
    finally:
        # srun cancels its job when it is told to end.
        if popen.poll() is None:
            popen.terminate()
        popen.wait()


def _left(job: Job, code: int | None, timeout_s: float) -> Ran | PdError:
    told, log = f"srun ended with {code}", Path(job.out_dir) / "srun.log"
    if code is None:
        return InvalidRun(
            f"refit of {job.name} was not done after {timeout_s:g} s.",
            hint="raise --timeout-s: time in the queue counts",
            where=log,
        )
    try:
        return Ran(reports_of(job), f"{told}: see {log}." if code else "")
    except InvalidRun as error:
        return InvalidRun(
            f"{error.fact} {told}.",
            hint="name partition and account with --slurm-flag",
            where=log,
        )
