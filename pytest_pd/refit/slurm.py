"""Run jobs under Slurm: one batch job per refit, its reports in a shared folder."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pytest_pd.errors import BackendMissing, InvalidRun, ProvisionError
from pytest_pd.refit import launch
from pytest_pd.refit.job import Job, RankReport
from pytest_pd.refit.local import reports_of, worker_environment, worker_python


def batch_argv(
    job: Job, script: Path, *, per_node: int, time_min: int, extra: Sequence[str]
) -> tuple[str, ...]:
    """Return the submission of a CPU job: one task per node, which forks its ranks."""
    nodes = -(-job.world // per_node)
    return (
        *("sbatch", "--parsable", "--wait", f"--nodes={nodes}"),
        *("--ntasks-per-node=1", f"--cpus-per-task={min(per_node, job.world)}"),
        *(f"--time={time_min}", f"--job-name=pd-refit-{Path(job.out_dir).name}"),
        *(f"--output={job.out_dir}/slurm-%j.log", *extra, str(script)),
    )


def run_slurm(
    jobs: Sequence[Job],
    folder: Path,
    *,
    per_node: int = 8,
    time_min: int = 10,
    extra: Sequence[str] = (),
) -> list[list[RankReport]]:
    """Submit jobs, wait for all of them, and return their reports in order.

    Args:
        folder: On a file system that the nodes share.
        per_node: Ranks per node.
        time_min: Slurm's limit per job, in minutes.
        extra: More flags for sbatch, such as the partition.

    Raises:
        BackendMissing: no sbatch here.
        ProvisionError: Slurm refused a job.
        InvalidRun: no rank of a job reported.
    """
    python = worker_python()
    home = worker_environment(folder)["PYTHONPATH"]
    waiting: list[subprocess.Popen[str]] = []
    try:
        for job in jobs:
            waiting.append(
                _submit(job, home, python, per_node, time_min=time_min, extra=extra)
            )
        for job, popen in zip(jobs, waiting, strict=True):
            _, told = popen.communicate()
            if popen.returncode and "error" in told:
                raise ProvisionError(
                    f"{job.name}: sbatch: {told.strip().splitlines()[-1]}",
                    hint="name the partition and account with --slurm-flag",
                )
    except FileNotFoundError as error:
        raise BackendMissing(
            "there is no sbatch on PATH.", hint="run on a login node of the cluster"
        ) from error
    finally:
        for popen in waiting:
            if popen.poll() is None:
                popen.terminate()
                popen.communicate()
    return [_reports(job) for job in jobs]


def _submit(
    job: Job,
    home: str,
    python: str,
    per_node: int,
    *,
    time_min: int,
    extra: Sequence[str],
) -> subprocess.Popen[str]:
    out = Path(job.out_dir)
    out.mkdir(parents=True, exist_ok=True)
    replace(job, rendezvous="env://").save(out / "job.json")
    script = out / "job.sh"
    argv = launch.nursery_argv(out / "job.json", per_node, python=python)
    script.write_text(launch.sbatch_script(argv, import_path=home))
    return subprocess.Popen(
        batch_argv(job, script, per_node=per_node, time_min=time_min, extra=extra),
        cwd=out,
        env={k: v for k, v in os.environ.items() if k != "GLOO_SOCKET_IFNAME"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _reports(job: Job) -> list[RankReport]:
    try:
        return reports_of(job)
    except InvalidRun as error:
        logs = sorted(Path(job.out_dir).glob("slurm-*.log"))
        raise InvalidRun(
            error.fact, hint=error.hint, where=logs[-1] if logs else job.out_dir
        ) from error
