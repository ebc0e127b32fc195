"""Compare runs: ratio with interval, verdict, and what else differs.

examples:
  pytest-pd compare runs/A runs/B
  pytest-pd compare 'runs/202608*' runs/B          several runs on a side count as one
  pytest-pd compare runs/A runs/B runs/C           B and C, each against A
  pytest-pd compare runs/agg runs/pd --force       other topologies, on purpose
  pytest-pd compare old.json runs/B --out both     a file of --benchmark-json; a page
  pytest-pd compare http://a:8000 http://b:8000    two servers, in turn, A B A B

A ratio above 1 is worse. One run a side: the scatter from run to run is not known
and is taken from --jitter. The exit code is 0 whatever the verdicts are; to fail on
a change use a gate (pytest-pd gate, --pd-gate). Servers get the same prompts in
every round; 1 says that a round cannot carry a conclusion.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from glob import glob
from pathlib import Path

from pytest_pd.command.runs import run_of
from pytest_pd.errors import MeasurementError, SpecError
from pytest_pd.load.option import positive, scatter, share, zero_or_more
from pytest_pd.load.workload import LEVELS
from pytest_pd.measure.ratio import JITTER
from pytest_pd.report.compare import Compared, Comparison, compare
from pytest_pd.report.compare_page import compare_page, figure
from pytest_pd.report.read import RunRecord, overlap
from pytest_pd.report.read_benchmark import read_benchmark
from pytest_pd.report.summary import table
from pytest_pd.report.write import write_files

HEAD = ("change", "ratio", "interval", "old", "new", "runs", "statistic", "metric")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``pytest-pd compare``."""
    parser.add_argument("sides", nargs="+", metavar="DIR|FILE|GLOB[,...]")
    parser.add_argument(
        "--effect",
        type=zero_or_more,
        default=0.05,
        metavar="SHARE",
        help="default 0.05",
    )
    parser.add_argument(
        "--confidence", type=share, default=0.95, metavar="SHARE", help="default 0.95"
    )
    parser.add_argument(
        "--jitter",
        type=scatter,
        default=JITTER,
        metavar="SHARE",
        help=f"assumed scatter from run to run, default {JITTER}",
    )
    parser.add_argument("--force", action="store_true", help="compare the unlike too")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write compare.md and compare.html here"
    )
    parser.add_argument("--title", default="", metavar="TEXT", help="of compare.html")
    add = parser.add_argument_group("servers, measured in turn").add_argument
    add("--workload", default="llama31_8b_100", metavar="NAME", help="file or name")
    add("--level", choices=LEVELS, default="standard", help="points of the workload")
    add("--rounds", type=positive, default=3, metavar="N", help="A B is one, default 3")
    add(
        "--own-prompts",
        action="store_true",
        help="other prompts for each: they have the same workers behind them",
    )
    add("--api-key-env", metavar="VARIABLE", help="environment variable with the key")
    add("--ca-file", type=Path, metavar="FILE", help="PEM bundle to trust for https")


def run(args: argparse.Namespace) -> int:
    """Compare every further side with the first, and print it."""
    if len(args.sides) < 2:
        raise MeasurementError(
            "One side was named.", hint="name two: pytest-pd compare OLD NEW"
        )
    if is_url(args.sides[0]):
        return run_in_turn(args)
    sides = [read_side(side) for side in args.sides]
    pairs, notes = [], []
    for name, new in zip(args.sides[1:], sides[1:], strict=True):
        old, left = apart(args.sides[0], sides[0], new)
        new, more = apart(name, new, old)
        notes.append([*left, *more])
        found = compare(
            old,
            new,
            effect=args.effect,
            confidence=args.confidence,
            jitter=args.jitter,
            force=args.force,
        )
        pairs.append((args.sides[0], name, found))
    texts = [
        text_of(found, old, new, forced=args.force, notes=more)
        for (old, new, found), more in zip(pairs, notes, strict=True)
    ]
    print("\n".join(texts))
    if args.out:
        named = [(short(old), short(new), found) for old, new, found in pairs]
        told = [" ".join(filter(None, more)) for more in notes]
        page = compare_page(named, forced=args.force, title=args.title, notes=told)
        files = {"compare.md": "\n".join(texts), "compare.html": page}
        write_files(args.out, files)
    return 0


def is_url(side: str) -> bool:
    """Tell whether a side is a server and not a folder."""
    return side.startswith(("http://", "https://"))


def run_in_turn(args: argparse.Namespace) -> int:
    """Measure servers in turn and compare every further one with the first.

    Returns:
        1 if a round of one cannot carry a conclusion.

    Raises:
        MeasurementError: a side is no server.
        SpecError: ``--out`` cannot be written; nothing was measured.
        Exception: what ended a round; those before it are told and written first.
    """
    from pytest_pd.terminal.load import base_url, key_header
    from pytest_pd.terminal.versus import CutShort, verdicts, versus

    if others := [side for side in args.sides if not is_url(side)]:
        raise MeasurementError(f"{others[0]!r} is no URL, and {args.sides[0]!r} is.")
    if args.out:
        check_folder(args.out)
    cut: CutShort | None = None
    try:
        old, *rest = versus(
            [base_url(side) for side in args.sides],
            args.workload,
            rounds=args.rounds,
            level=args.level,
            own_prompts=args.own_prompts,
            headers=key_header(args.api_key_env),
            ca_file=args.ca_file,
        )
    except CutShort as error:
        (old, *rest), cut = error.sides, error
    notes = [f"{cut}", ""] if cut else []
    limits = {name: getattr(args, name) for name in ("effect", "confidence", "jitter")}
    pairs = []
    for new in rest:
        if rows := verdicts(old, new, **limits):
            pairs.append((old.url, new.url, Comparison(tuple(rows), (), (), ())))
        else:
            print(f"Nothing that holds was measured both at {old.url} and {new.url}.")
    texts = [text_of(found, a, b, forced=False, notes=notes) for a, b, found in pairs]
    try:
        if args.out:
            page = compare_page(
                pairs, forced=False, title=args.title, notes=notes, has_plans=False
            )
            text = "\n".join(texts)
            write_files(args.out, {"compare.md": text, "compare.html": page})
    finally:
        print("\n".join(texts))
    invalid = [f"{side.url} {why}" for side in (old, *rest) for why in side.invalid]
    for why in invalid:
        print(f"INVALID: {why}")
    if cut:
        print(cut)
        raise cut.cause
    return 1 if invalid else 0


def check_folder(path: Path) -> None:
    """Make a folder, or refuse it, before anything is measured for it.

    Raises:
        SpecError: it cannot be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError(
            f"--out {path} cannot be a folder: {error.strerror}."
        ) from error
    if not os.access(path, os.W_OK):
        raise SpecError(f"--out {path} cannot be written by this user.")


def short(words: str) -> str:
    """Return a side without the folders that its paths lie in."""
    return ", ".join(Path(word).name or word for word in words.split(","))


def read_side(words: str) -> list[RunRecord]:
    """Return the runs that a comma list of folders, files and globs names, in order.

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
        found += [_read(Path(path)) for path in paths]
    return found


def _read(path: Path) -> RunRecord:
    return read_benchmark(path) if path.suffix == ".json" else run_of(path)


def apart(
    words: str, side: Sequence[RunRecord], other: Sequence[RunRecord]
) -> tuple[list[RunRecord], list[str]]:
    """Return a side less what its globs share with the other, and a line on that.

    A run that both sides name without a glob stays: that was asked for.

    Args:
        words: That named the side.

    Raises:
        MeasurementError: the other side has all of it.
    """
    named = {Path(word) for word in words.split(",")}
    shared = [
        run
        for run in side
        if run.path not in named and any(overlap(run.path, o.path) for o in other)
    ]
    if not shared:
        return list(side), []
    names = ", ".join(run.path.name for run in shared)
    told = f"in {words!r} and on the other side: {names}"
    if len(shared) == len(side):
        raise MeasurementError(
            f"All runs are {told}.", hint="name sides that have no run in common"
        )
    return [run for run in side if run not in shared], [f"Left out, {told}.", ""]


def text_of(
    found: Comparison,
    old: str,
    new: str,
    *,
    forced: bool,
    notes: Sequence[str] = (),
) -> str:
    """Return a comparison as Markdown, `notes` above it."""
    lines = [f"## {new} against {old}", "", *notes]
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
        figure(ratio.old, row.unit),
        figure(ratio.new, row.unit),
        f"{ratio.old_runs} / {ratio.new_runs}",
        row.statistic,
        row.name,
    )


def _cut(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
