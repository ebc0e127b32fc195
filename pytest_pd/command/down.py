"""End a topology that was left up, and everything that belongs to it.

examples:
  pytest-pd down k3f9abcd              by the id that up printed, or its beginning
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_pd.provision.reap import Reaped, end_run
from pytest_pd.provision.rundir import find_run


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``pytest-pd down``."""
    parser.add_argument("run_id", metavar="RUN_ID")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR")


def run(args: argparse.Namespace) -> int:
    """End every topology of the run."""
    print(tell(end_run(find_run(args.run_id, root=args.runs))))
    return 0


def tell(reaped: Reaped, did: str = "ended") -> str:
    """Return one line on what became of a run."""
    if reaped.owner:
        return f"{reaped.run_id}: in use by {reaped.owner}; left alone"
    if reaped.trouble:
        return f"{reaped.run_id}: cannot be ended: {reaped.trouble}"
    words = []
    if reaped.ended:
        names = ", ".join(f"{s.name} {s.part} {s.pid}" for s in reaped.ended)
        words.append(f"{len(reaped.ended)} processes: {names}")
    words += [f"what carries its id on {name}" for name in reaped.asked]
    if not words:
        return f"{reaped.run_id}: nothing of it runs here"
    return f"{reaped.run_id}: {did} {' and '.join(words)}"
