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
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_pd.errors import MeasurementError, PdError
from pytest_pd.report.page import make_page
from pytest_pd.report.read import RunRecord, read_run
from pytest_pd.report.rows import LONG, long_rows, to_csv, wide_rows
from pytest_pd.report.summary import summary_markdown


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
    for path in write_files(out, files_of(records, out, args.title)):
        print(path)
    return 0


def files_of(runs: Sequence[RunRecord], out: Path, title: str) -> dict[str, str]:
    """Return file name to content."""
    return {
        "report.html": make_page(runs, out, title=title),
        "summary.md": summary_markdown(runs),
        "results.csv": to_csv(long_rows(runs), LONG),
        "results_wide.csv": to_csv(wide_rows(runs)),
    }


def write_files(out: Path, files: Mapping[str, str]) -> list[Path]:
    """Write each file whole or not at all, and return the paths.

    Raises:
        PdError: the folder cannot be written.
    """
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            partial = out / f"{name}.partial"
            partial.write_text(text, encoding="utf-8")
            written.append(partial.replace(out / name))
    except OSError as error:
        raise PdError(
            f"{str(out)!r} cannot be written: {error.strerror}.",
            hint="choose another folder with --out",
        ) from error
    return written
