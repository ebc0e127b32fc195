"""End what killed runs have left behind, after proof that it is theirs.

A run in use, by a harness or by a keeper, is left alone: see `pytest-pd down`.

examples:
  pytest-pd reap                       every run below runs/ and every known one
  pytest-pd reap --dry-run             only say what it would end
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_pd.command.down import tell
from pytest_pd.provision.reap import Reaped, owner_of, reap, survivors
from pytest_pd.provision.rundir import find_runs, id_of, topologies_of


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``pytest-pd reap``."""
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR")
    parser.add_argument("--dry-run", action="store_true")


def run(args: argparse.Namespace) -> int:
    """Reap every run that can be found; silent about those with nothing left."""
    runs = find_runs(root=args.runs)
    for reaped in map(would_reap, runs) if args.dry_run else reap(runs):
        if reaped.owner or reaped.ended:
            print(("would end: " if args.dry_run else "") + tell(reaped))
    print(f"{len(runs)} run(s) looked at")
    return 0


def would_reap(path: Path) -> Reaped:
    """Return what `reap` would end, ending nothing."""
    folders = topologies_of(path)
    owner = next((who for who in map(owner_of, folders) if who), "")
    found = [s for folder in folders for s in survivors(folder)]
    return Reaped(path, id_of(path), owner, tuple(found))
