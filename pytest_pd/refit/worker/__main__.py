"""Run one rank: ``python -m pytest_pd.refit.worker job.json``.

The rank comes from RANK, or from SLURM_PROCID under srun.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pytest_pd.refit.job import load_job
from pytest_pd.refit.worker.rank import run_rank


def main() -> int:
    """Run the rank that the environment names; 1 if it could not finish."""
    job = load_job(Path(sys.argv[1]))
    rank = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))
    if rank >= job.world:
        print(f"rank {rank} is idle: the refit uses {job.world} ranks")
        return 0
    return 1 if run_rank(job, rank).error else 0


if __name__ == "__main__":
    raise SystemExit(main())
