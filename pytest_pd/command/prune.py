"""Remove the folders of old runs; runs in use and the newest ones stay.

examples:
  pytest-pd prune                      keeps the 20 newest
  pytest-pd prune --keep 3 --runs /data/runs
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_pd.load.option import count
from pytest_pd.provision.reap import is_used
from pytest_pd.provision.rundir import measured_below, prune, runs_below


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``pytest-pd prune``."""
    parser.add_argument("--keep", type=count, default=20, metavar="N")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR")


def run(args: argparse.Namespace) -> int:
    """Remove what is old and unused below one folder, and say what it was.

    Returns:
        1 when a run could not be removed.
    """
    unused = [path for path in runs_below(args.runs) if not is_used(path)]
    unused += measured_below(args.runs)
    old = prune(sorted(unused, key=lambda run: run.stat().st_mtime), keep=args.keep)
    for path, why in old.items():
        print(f"not removed {path.name}: {why}" if why else f"removed {path.name}")
    stayed = sum(map(bool, old.values()))
    print(f"{len(old) - stayed} of {len(unused)} unused run(s) removed")
    return min(stayed, 1)
