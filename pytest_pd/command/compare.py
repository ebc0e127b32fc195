"""Compare runs: ratio with interval, verdict, and what else differs.

examples:
  pytest-pd compare runs/A runs/B
  pytest-pd compare 'runs/202608*' runs/B          several runs on a side count as one
  pytest-pd compare runs/A runs/B runs/C           B and C, each against A
  pytest-pd compare runs/agg runs/pd --force       other topologies, on purpose

A ratio above 1 is worse. One run a side: the scatter from run to run is not known
and is taken from --jitter. The exit code is 0 whatever the verdicts are; to fail on
a change use a gate (pytest-pd gate, --pd-gate).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from glob import glob
from pathlib import Path

from pytest_pd.errors import MeasurementError
from pytest_pd.measure.ratio import JITTER
from pytest_pd.report.compare import Compared, Comparison, compare
from pytest_pd.report.read import RunRecord, read_run
from pytest_pd.report.summary import table
from pytest_pd.report.words import digits, duration
from pytest_pd.report.write import write_files

HEAD = ("change", "ratio", "interval", "old", "new", "runs", "statistic", "metric")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``pytest-pd compare``."""
    parser.add_argument("sides", nargs="+", metavar="DIR|GLOB[,DIR|GLOB...]")
    parser.add_argument(
        "--effect", type=float, default=0.05, metavar="SHARE", help="default 0.05"
    )
    parser.add_argument(
        "--confidence", type=float, default=0.95, metavar="SHARE", help="default 0.95"
    )
    parser.add_argument(
        "--jitter",
        type=float,
        default=JITTER,
        metavar="SHARE",
        help=f"assumed scatter from run to run, default {JITTER}",
    )
    parser.add_argument("--force", action="store_true", help="compare the unlike too")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write compare.md here")


def run(args: argparse.Namespace) -> int:
    """Compare every further side with the first, and print it."""
    if len(args.sides) < 2:
        raise MeasurementError(
            "One side was named.", hint="name two: pytest-pd compare OLD NEW"
        )
    sides = [read_side(side) for side in args.sides]
    texts = []
    for name, new in zip(args.sides[1:], sides[1:], strict=True):
        found = compare(
            sides[0],
            new,
            effect=args.effect,
            confidence=args.confidence,
            jitter=args.jitter,
            force=args.force,
        )
        texts.append(text_of(found, args.sides[0], name, forced=args.force))
    print("\n".join(texts))
    if args.out:
        write_files(args.out, {"compare.md": "\n".join(texts)})
    return 0


def read_side(words: str) -> list[RunRecord]:
    """Return the runs that a comma list of folders and globs names, in order.

    Raises:
        MeasurementError: a word names nothing, or no run.
    """
    found: list[RunRecord] = []
    for word in words.split(","):
        paths = sorted(glob(word))  # noqa: PTH207  absolute patterns too
        if not paths:
            raise MeasurementError(
                f"{word!r} names no folder.", hint="look below runs/"
            )
        found += [read_run(Path(path)) for path in paths]
    return found


def text_of(found: Comparison, old: str, new: str, *, forced: bool) -> str:
    """Return a comparison as Markdown."""
    lines = [f"## {new} against {old}", ""]
    if forced:
        lines += ["Compared by force: kinds or topologies may differ.", ""]
    lines += [*table(HEAD, map(_cells, found.rows)), ""]
    counts = [row.change.value for row in found.rows]
    told = {word: counts.count(word) for word in dict.fromkeys(counts)}
    lines += [", ".join(f"{n} {word}" for word, n in told.items()), ""]
    for side, names in (("old", found.only_old), ("new", found.only_new)):
        if names:
            lines += [f"Only in the {side}: {len(names)} entries.", ""]
    if found.differences:
        rows = [[_cut(cell) for cell in row] for row in found.differences]
        lines += ["What differs:", "", *table(("what", "old", "new"), rows), ""]
    return "\n".join(lines)


def _cells(row: Compared) -> Sequence[str]:
    ratio = row.ratio
    return (
        row.change.value,
        f"{ratio.value:.3f}",
        f"{ratio.low:.3f} to {ratio.high:.3f}",
        _figure(ratio.old, row.unit),
        _figure(ratio.new, row.unit),
        f"{ratio.old_runs} / {ratio.new_runs}",
        row.statistic,
        row.name,
    )


def _figure(value: float, unit: str) -> str:
    return duration(value) if unit == "s" else f"{digits(value)} {unit}"


def _cut(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
