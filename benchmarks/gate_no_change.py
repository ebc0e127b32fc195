"""How often the gate calls a real run worse in which nothing changed.

Measures the same thing again and again with pytest, each time from bring-up to report,
and then judges each run as a night's gate would: against the K runs before it, and
against K runs drawn from all others (neighbours of the machine come and go, and a night
does not follow the other within seconds).

    python -m benchmarks.gate_no_change --into build/no-change --runs 110 --seconds 150
    python -m benchmarks.gate_no_change --into build/no-change --judge

The first adds runs until there are so many, or time is up; repeat it. Prints a row per
order and K: reports, reports with an alarm, and how the figures were judged.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from pytest_pd.report.gate import GateWord, judge
from pytest_pd.report.read import RunRecord, read_run
from pytest_pd.spec.gate import GateSpec

ROOT = Path(__file__).parents[1]
TESTS = "suites/performance/test_sweep.py"
METRICS = ("ttft", "tpot", "e2e", "output_token_time", "ttft_intended")
GATE = GateSpec.model_validate(
    {"baseline": ["*"], "metrics": {m: {"max_increase": 0.05} for m in METRICS}}
)


def measure(into: Path, runs: int, seconds: float) -> None:
    """Add runs to the folder until there are `runs`, or for `seconds`."""
    end_s = time.monotonic() + seconds
    into.mkdir(parents=True, exist_ok=True)
    for number in range(len(list(into.iterdir())), runs):
        if time.monotonic() > end_s:
            break
        words = [
            TESTS,
            "--topology",
            "local_1p1d",
            "--run-dir",
            str(into / _id(number)),
        ]
        subprocess.run(
            [sys.executable, "-m", "pytest", "-o", "pd_save=false", *words],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            check=False,  # figures that do not hold are for the gate to leave out
            timeout=300,
        )
        print(_id(number), f"load {os.getloadavg()[0]:.1f}", flush=True)


def _id(number: int) -> str:
    return f"run-{number:03}"


def before(runs: Sequence[RunRecord], size: int) -> Iterator[list[RunRecord]]:
    """Yield for each run that has them the `size` runs before it, and itself."""
    for index in range(size, len(runs)):
        yield list(runs[index - size : index + 1])


def drawn(runs: Sequence[RunRecord], size: int) -> Iterator[list[RunRecord]]:
    """Yield for each run `size` of the others, drawn by a seed, and itself."""
    for index, run in enumerate(runs):
        others = [*runs[:index], *runs[index + 1 :]]
        yield [*random.Random(f"{size}:{index}").sample(others, size), run]


def row(name: str, size: int, reports: Iterator[list[RunRecord]]) -> str:
    """Return one row of the table."""
    words: Counter[GateWord] = Counter()
    count = alarmed = 0
    for *baseline, run in reports:
        lines = judge(GATE, run, baseline).lines
        found = Counter(line.word for line in lines)
        words += found
        count, alarmed = count + 1, alarmed + bool(found[GateWord.WORSE])
    told = " | ".join(str(words[word]) for word in GateWord)
    return f"| {name} | {size} | {count} | {alarmed} | {told} |"


def scatter(runs: Sequence[RunRecord]) -> str:
    """Return how the medians of the runs scatter, by entry."""
    medians: dict[str, list[float]] = {}
    for run in runs:
        for entry in run.entries:
            if entry.metric in METRICS and entry.is_valid:
                name = entry.fullname.removeprefix("pd::")
                medians.setdefault(name, []).append(statistics.median(entry.samples))
    rows = ["| figure | valid runs | quartiles over median |", "|---|---|---|"]
    for name, values in sorted(medians.items()):
        low, middle, high = statistics.quantiles(values)
        rows.append(
            f"| {name} | {len(values)} | {low / middle:.2f} to {high / middle:.2f} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Measure, or judge what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=ROOT / "build" / "no-change")
    parser.add_argument("--runs", type=int, default=110)
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--judge", action="store_true")
    args = parser.parse_args()
    if not args.judge:
        measure(args.into, args.runs, args.seconds)
        return
    runs = [read_run(path) for path in sorted(args.into.iterdir())]
    print(scatter(runs))
    columns = " | ".join(GateWord)
    print(f"\n| baseline | K | reports | with an alarm | {columns} |")
    print(f"|{'---|' * (4 + len(GateWord))}")
    for size in (3, 5, 10):
        print(row("before it", size, before(runs, size)), flush=True)
        print(row("drawn", size, drawn(runs, size)), flush=True)


if __name__ == "__main__":
    main()
