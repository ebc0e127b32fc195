"""Accept runs as what later runs are held against, in a file that people review.

examples:
  pytest-pd accept-baseline runs/20260801T020000Z-k3m9x2pq --into baselines.yaml \\
      --reason "vLLM 0.32.1"
  pytest-pd accept-baseline 'runs/202608*' --into baselines.yaml --gate gate.yaml
  pytest-pd accept-baseline runs/A --into baselines.yaml --add

The file has one entry for each hardware, topology (by hash), engine, kind and label;
others stay as they are. Nothing is committed: look at the diff, then commit it. A gate
uses it where its `baseline` names the file. Exit code 2 when a run did not pass.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from glob import glob
from pathlib import Path

from pytest_pd.command.runs import run_of
from pytest_pd.errors import MeasurementError
from pytest_pd.report.accept import accept, changes, text_of
from pytest_pd.report.read import RunRecord
from pytest_pd.report.write import write_files
from pytest_pd.spec.baseline import BaselineFile, read_baselines
from pytest_pd.spec.gate import read_gate
from pytest_pd.user import user_name


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``pytest-pd accept-baseline``."""
    add = parser.add_argument
    add("runs", nargs="+", metavar="DIR|GLOB")
    add("--into", type=Path, required=True, metavar="FILE", help="made or changed")
    add("--gate", type=Path, metavar="FILE", help="only what this gate judges")
    add("--reason", default="", metavar="TEXT", help="why these figures are right")
    add("--by", default="", metavar="NAME", help="default: the user's name")
    add("--add", action="store_true", help="keep the runs accepted before")
    add("--force", action="store_true", help="accept a run that did not pass")


def run(args: argparse.Namespace) -> int:
    """Write the file and print every figure that is new or moved."""
    runs = _runs(args.runs, forced=args.force)
    known = read_baselines(args.into) if args.into.is_file() else BaselineFile()
    told = {
        "accepted": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "by": args.by or user_name(),
        "reason": args.reason,
    }
    gate = read_gate(args.gate) if args.gate else None
    new = accept(known, runs, gate=gate, told=told, add=args.add)
    for line in changes(known, new):
        print(line)
    write_files(args.into.parent, {args.into.name: text_of(new)})
    print(f"{args.into}: review it, then commit it")
    return 0


def _runs(words: list[str], *, forced: bool) -> list[RunRecord]:
    paths = [Path(path) for word in words for path in sorted(glob(word)) or [word]]  # noqa: PTH207
    runs = [run_of(path) for path in dict.fromkeys(paths)]
    for record in runs:
        if record.word != "passed" and not forced:
            raise MeasurementError(
                f"Run {record.run_id!r} is {record.word}: no baseline.",
                hint="accept a run that passed, or add --force",
            )
    return runs
