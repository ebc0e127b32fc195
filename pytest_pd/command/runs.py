"""Runs that a user names on a command line."""

from __future__ import annotations

import sys
from pathlib import Path

from pytest_pd.report.read import RunRecord, read_run


def run_of(path: Path) -> RunRecord:
    """Return the run in a folder, and say on stderr what of it cannot be read.

    Raises:
        MeasurementError: there is no run in `path`.
    """
    run = read_run(path)
    for told in run.damaged:
        print(f"damaged: {told}", file=sys.stderr)
    return run
