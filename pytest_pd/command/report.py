"""Write the report of finished or killed runs: page, summary, tables.

examples:
  pytest-pd report runs/20260801T020000Z-k3m9x2pq
  pytest-pd report runs/A runs/B --out both --title "Router 0.1.12 against 0.1.11"

Writes report.html (opens without a network), summary.md, results.csv (one figure
a row) and results_wide.csv (one measured point a row) into the run's folder, or
into --out, which several runs need.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_pd.errors import MeasurementError
from pytest_pd.report.read import read_run
from pytest_pd.report.write import files_of, write_files


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``pytest-pd report``."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="DIR")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write")
    parser.add_argument("--title", default="", metavar="TEXT")


def run(args: argparse.Namespace) -> int:
    """Read the runs, write the files and name them."""
    records = [read_run(path) for path in args.runs]
    if args.out is None and len(records) > 1:
        raise MeasurementError(
            f"{len(records)} runs were named and no folder for their report.",
            hint="add --out DIR",
        )
    out: Path = args.out or args.runs[0]
    for path in write_files(out, files_of(records, out, title=args.title)):
        print(path)
    return 0
