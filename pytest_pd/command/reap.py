"""End what killed runs have left behind, after proof that it is theirs.

A run in use, by a harness or by a keeper, is left alone: see `pytest-pd down`. Where
another host started it, its lease is watched: one that still changes is in use.

examples:
  pytest-pd reap                       every run below runs/ and every known one
  pytest-pd reap --dry-run             only say what it would end
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_pd.command.down import tell
from pytest_pd.provision.reap import reap
from pytest_pd.provision.rundir import find_runs


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``pytest-pd reap``."""
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR")
    parser.add_argument("--dry-run", action="store_true")


def run(args: argparse.Namespace) -> int:
    """Reap every run that can be found; silent about those with nothing left.

    Returns:
        1 when a run could not be ended.
    """
    runs = find_runs(root=args.runs)
    did = "would end" if args.dry_run else "ended"
    troubles = 0
    for found in reap(runs, dry_run=args.dry_run, say=print):
        troubles += bool(found.trouble)
        if found.owner or found.trouble or found.ended or found.asked:
            print(tell(found, did))
    print(f"{len(runs)} run(s) looked at")
    return min(troubles, 1)
