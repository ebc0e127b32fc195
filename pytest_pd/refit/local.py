"""Run jobs on this machine: one process that imports torch once and forks the ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from pytest_pd.errors import EngineMissing, InvalidRun, PdError
from pytest_pd.group import end_group
from pytest_pd.refit.job import (
    Job,
    Ran,
    RankReport,
    lay_out,
    left_by,
    load_report,
    report_path,
)

PYTHON_VARIABLE = "PD_REFIT_PYTHON"
"""Interpreter with torch and numpy, if it is not the one that runs pytest-pd."""

_PROBE = (
    "import importlib.util as u, sys; "
    "sys.exit(not (u.find_spec('torch') and u.find_spec('numpy')))"
)


def worker_python() -> str:
    """Return the interpreter for the workers.

    Raises:
        EngineMissing: it cannot import torch.
    """
    python = os.environ.get(PYTHON_VARIABLE) or sys.executable
    try:
        code = subprocess.run(
            [python, "-c", _PROBE], check=False, capture_output=True, timeout=60
        ).returncode
    except OSError as error:
        raise EngineMissing(
            f"{PYTHON_VARIABLE} names {python!r}, which cannot be started.",
            hint="give the path of a Python with torch",
        ) from error
    if code:
        raise EngineMissing(
            f"{python} has no torch, which moves the weights.",
            hint=f"pip install 'pytest-pd[refit]', or set {PYTHON_VARIABLE} to a "
            "Python that has torch and numpy",
        )
    return python


def worker_environment(folder: Path) -> dict[str, str]:
    """Return the environment of workers; makes a folder with a link to this package.

    The link alone goes on the path: another interpreter must not see the rest of
    our site-packages.
    """
    package = Path(__file__).resolve().parent.parent
    home = folder / "import"
    home.mkdir(parents=True, exist_ok=True)
    link = home / package.name
    if link.resolve() != package:
        # In one step: threads of other hosts may do it at the same time.
        fresh = home / uuid4().hex
        fresh.symlink_to(package, target_is_directory=True)
        fresh.replace(link)
    return {
        **os.environ,
        "PYTHONPATH": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }


@contextmanager
def _nursery(argv: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "nursery.log").open("wb") as sink:
        popen = subprocess.Popen(
            argv,
            env=worker_environment(folder),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield popen
    finally:
        # Ranks are in the nursery's session: one signal ends all of them.
        end_group(popen)


def run_local(
    jobs: Sequence[Job], folder: Path, *, timeout_s: float = 600.0
) -> list[Ran]:
    """Run jobs one after the other; return what each left, in order.

    Args:
        folder: Where logs go; each job has its own `out_dir`.
        timeout_s: For all jobs together.

    Raises:
        EngineMissing: no torch.
        InvalidRun: no job was done in time, or no rank of any ever reported.
    """
    python = worker_python()
    folder.mkdir(parents=True, exist_ok=True)
    paths = [str(lay_out(job)) for job in jobs]
    argv = [python, "-m", "pytest_pd.refit.worker.nursery", *paths]
    with _nursery(argv, folder) as popen:
        try:
            code = popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return left_by(_until_time_was_up(jobs, folder, timeout_s))
    found = [_left(job) for job in jobs]
    told = f"the ranks' parent ended with {code}: see {folder / 'nursery.log'}."
    # One code for all jobs: a rank that failed and said so is the reason for it.
    if code and not any(map(_has_failed, jobs, found)):
        return [replace(ran, ended=told) for ran in left_by(found)]
    return left_by(found)


def _until_time_was_up(
    jobs: Sequence[Job], folder: Path, timeout_s: float
) -> list[Ran | PdError]:
    # Jobs run in order, and each rank opens its log first: the last job with a
    # log was still running.
    started = [any(Path(job.out_dir).glob("rank-*.log")) for job in jobs]
    done = max((n for n, has in enumerate(started) if has), default=0)
    late = [
        InvalidRun(
            f"refit of {job.name} was not done after {timeout_s:g} s.",
            hint="raise the time-out, or look for a rank that waits",
            where=folder / "nursery.log",
        )
        for job in jobs[done:]
    ]
    return [*map(_left, jobs[:done]), *late]


def _left(job: Job) -> Ran | PdError:
    try:
        return Ran(reports_of(job))
    except InvalidRun as error:
        return error


def _has_failed(job: Job, ran: Ran | PdError) -> bool:
    if isinstance(ran, PdError):
        return True
    return len(ran.reports) < job.world or any(r.error for r in ran.reports)


def reports_of(job: Job) -> list[RankReport]:
    """Read the reports of a job that has run, ascending by rank.

    Reports of another launch are left out.

    Raises:
        InvalidRun: there is none, or one is damaged.
    """
    paths = [report_path(Path(job.out_dir), rank) for rank in range(job.world)]
    found = [load_report(path) for path in paths if path.exists()]
    own = [report for report in found if report.launch == job.launch]
    if not own:
        others = f"; {len(found)} of another launch lie there" if found else ""
        raise InvalidRun(
            f"{job.name}: no rank gave a report of this launch{others}.",
            hint="the workers could not start",
            where=Path(job.out_dir).parent / "nursery.log",
        )
    return own
