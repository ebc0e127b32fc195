"""Run jobs one after the other on this machine: import once, fork a child per rank.

``python -m pytest_pd.refit.worker.nursery job.json ...``. Starting eight processes
that each import torch takes minutes on two cores; forked ones start at once.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from pytest_pd.refit.job import Job, load_job
from pytest_pd.refit.worker.rank import run_rank

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent goes."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _child(job: Job, rank: int, parent: int) -> None:
    code = 1
    try:
        die_with_parent(parent)
        log = Path(job.out_dir) / f"rank-{rank}.log"
        with log.open("wb") as sink:
            os.dup2(sink.fileno(), 1)
            os.dup2(sink.fileno(), 2)
        code = 1 if run_rank(job, rank).error else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # The interpreter's exit would run the parent's clean-up once more.
        os._exit(code)


def run_job(job: Job, ranks: Iterable[int]) -> bool:
    """Fork `ranks` of a job and wait; stop the rest when one has failed."""
    parent = os.getpid()
    living = set()
    for rank in ranks:
        pid = os.fork()
        if pid == 0:
            _child(job, rank, parent)
        living.add(pid)
    fine = True
    while living:
        pid, status = os.wait()
        living.discard(pid)
        if os.waitstatus_to_exitcode(status) != 0:
            fine = False
            for other in living:
                os.kill(other, signal.SIGTERM)
    return fine


def ranks_here(job: Job, per_node: int | None) -> range:
    """Return the ranks of this node: all of them without `per_node`.

    The node's number is NODE_RANK, else SLURM_NODEID, which srun sets.
    """
    if per_node is None:
        return range(job.world)
    node = os.environ.get("NODE_RANK") or os.environ.get("SLURM_NODEID", "0")
    start = int(node) * per_node
    return range(start, min(start + per_node, job.world))


def main() -> int:
    """Run every job that the command line names; 1 if one did not finish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-node", type=int, help="ranks on each node of a job")
    parser.add_argument("jobs", nargs="+", type=Path)
    args = parser.parse_args()
    die_with_parent(os.getppid())
    results = []
    for path in args.jobs:
        job = load_job(path)
        results.append(run_job(job, ranks_here(job, args.per_node)))
    return 0 if all(results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
