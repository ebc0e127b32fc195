"""Write the report of finished or killed runs: page, summary, tables, plots.

examples:
  pytest-pd report runs/20260801T020000Z-k3m9x2pq
  pytest-pd report runs/A runs/B --out both --title "Router 0.1.12 against 0.1.11"
  pytest-pd report runs/A --png
  pytest-pd report runs/A runs/B --layout process_results --title "16 GPUs 3000/150"
  pytest-pd report runs/A --layout sheet --sheet results.csv \\
      --match Concurrency=concurrency --cells O=ttft.p50:ms,P=ttft.p99:ms \\
      --archive sprint4_results/pd-disaggregation
  pytest-pd report runs/A --layout llm-d --out reports
  pytest-pd report runs/A --layout inferencex --out reports

layouts:
  page             report.html (no network), summary.md, results.csv (one figure a
                   row), results_wide.csv (one point a row); --png adds plots/*.png.
                   Into the run's folder, or --out, which several runs need
  process_results  artifacts/<lengths>/<configuration>/: results.csv, plot.png,
                   pareto_plot.png, plot_itl.png, plot_ttft.png, plot_req.png
  sheet            figures into columns of an existing CSV, no other byte changed
  llm-d            Benchmark Report 0.2.1, one YAML for each point
  inferencex       agg_*.json rows and results_bmk.json
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_pd.command.runs import run_of
from pytest_pd.errors import MeasurementError, SpecError
from pytest_pd.report.read import RunRecord
from pytest_pd.report.write import Content, files_of, png_files, write_files

LAYOUTS = ("page", "process_results", "sheet", "llm-d", "inferencex")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``pytest-pd report``."""
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="DIR")
    add("--out", type=Path, metavar="DIR", help="where to write")
    add("--title", default="", metavar="TEXT")
    add("--layout", choices=LAYOUTS, default="page", help="default: page")
    add("--png", action="store_true", help="page: every plot as plots/*.png too")
    group = parser.add_argument_group("layout sheet")
    add = group.add_argument
    add("--sheet", type=Path, metavar="FILE", help="existing CSV, changed in place")
    add(
        "--cells",
        action="append",
        default=[],
        metavar="COLUMN=METRIC.STATISTIC[:UNIT]",
        help="letter or header; repeatable, or a comma list; UNIT: s, ms, us",
    )
    add("--match", default="", metavar="COLUMN=FIELD", help="rows a point goes into")
    add("--first-row", type=int, default=2, metavar="N", help="without --match")
    add("--delimiter", default=",", metavar="CHAR")
    add("--archive", type=Path, metavar="DIR", help="keep report and old sheet here")


def run(args: argparse.Namespace) -> int:
    """Read the runs, write the files and name them."""
    records = [run_of(path) for path in args.runs]
    for path in _write(args, records):
        print(path)
    return 0


def _write(args: argparse.Namespace, records: Sequence[RunRecord]) -> list[Path]:
    if args.layout == "sheet":
        return _write_sheet(args, records)
    if args.layout == "page":
        return _write_page(args, records)
    return write_files(args.out or Path(), _foreign(args, records))


def _write_page(args: argparse.Namespace, records: Sequence[RunRecord]) -> list[Path]:
    if args.out is None and len(records) > 1:
        raise MeasurementError(
            f"{len(records)} runs were named and no folder for their report.",
            hint="add --out DIR",
        )
    out: Path = args.out or args.runs[0]
    files: dict[str, Content] = {**files_of(records, out, title=args.title)}
    if args.png:
        files |= png_files(records)
    return write_files(out, files)


def _foreign(
    args: argparse.Namespace, records: Sequence[RunRecord]
) -> Mapping[str, Content]:
    if args.layout == "process_results":
        from pytest_pd.report.layout_process_results import process_results_files

        return process_results_files(records, args.title)
    if args.layout == "llm-d":
        from pytest_pd.report.export_llmd import llmd_files

        files = llmd_files(records)
        if not files:
            raise MeasurementError("The runs have no measured point that holds.")
        return files
    from pytest_pd.report.export_inferencex import inferencex_files

    return inferencex_files(records)


def _write_sheet(args: argparse.Namespace, records: Sequence[RunRecord]) -> list[Path]:
    from pytest_pd.report.layout_sheet import SheetWish, archive_files, sheet_files

    if args.sheet is None or not args.cells:
        raise SpecError(
            "The layout 'sheet' takes a sheet and what goes where.",
            hint="add --sheet FILE --cells O=ttft.p50:ms",
        )
    wish = SheetWish(
        args.sheet, tuple(args.cells), args.match, args.first_row, args.delimiter
    )
    changed = sheet_files(records, wish)
    written: list[Path] = []
    if args.archive:
        names = "+".join(path.resolve().name for path in args.runs)
        folder = args.archive / names
        # archived before the sheet changes: what it held is never lost
        old = archive_files(records, wish, args.title, folder)
        written += write_files(folder, old)
    return written + write_files(args.sheet.parent, changed)
