"""How often the gate is wrong, by simulation: false alarms and power over K baselines.

One new run against K stored ones. Each metric of each run is log-normal (sigma 0.3,
200 samples, p50 compared) times a run's own weather (3 % jitter), independent between
metrics: the hardest case for a whole report. Judged as `report.gate` judges, limit 5 %.

    python benchmarks/gate_simulation.py --baselines 5 --seconds 100 --seed 1

Prints for each K: reports simulated, share of unchanged reports with any alarm and its
95 % interval, alarms by metric, and the share of metrics found that got slower by 10
and 20 %. Several seeds can run at once; --merge adds up their printed rows.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time

import numpy as np

from pytest_pd.measure.ratio import compare_runs, statistic_of
from pytest_pd.report.outcome_charts import wilson

METRICS, SAMPLES, SIGMA, JITTER = 50, 200, 0.3, 0.03
ALPHA, LIMIT = 0.03, 0.05


def run_of(rng: np.random.Generator, shift: float = 1.0) -> np.ndarray:
    """Return the samples of one metric in one run."""
    weather = math.exp(rng.normal(0, JITTER))
    return np.exp(rng.normal(-3, SIGMA, SAMPLES)) * shift * weather


def is_alarm(rng: np.random.Generator, baselines: int, shift: float) -> bool:
    """Tell whether the gate calls one metric worse."""
    old = [run_of(rng) for _ in range(baselines)]
    new = run_of(rng, shift)
    logs = [math.log(statistic_of(run, "p50")) for run in old]
    if statistic_of(new, "p50") <= math.exp(sum(logs) / baselines) * (1 + LIMIT):
        return False  # below its limit nothing is an alarm: no need for an interval
    found = compare_runs(old, [new], confidence=1 - 2 * ALPHA / METRICS, jitter=JITTER)
    return found.low > 1 and found.value > 1 + LIMIT


def simulate(baselines: int, seconds: float, seed: int) -> list[int]:
    """Return K, reports, reports with an alarm, alarms, tried, found +10 %, +20 %."""
    rng = np.random.default_rng([baselines, seed])
    end_s = time.monotonic() + seconds
    reports = alarmed = alarms = tried = 0
    hits = {1.1: 0, 1.2: 0}
    while time.monotonic() < end_s:
        found = sum(is_alarm(rng, baselines, 1.0) for _ in range(METRICS))
        reports, alarms = reports + 1, alarms + found
        alarmed += bool(found)
        if tried < 3 * reports:
            for shift in hits:
                hits[shift] += is_alarm(rng, baselines, shift)
            tried += 1
    return [baselines, reports, alarmed, alarms, tried, *hits.values()]


def row(counts: list[int]) -> str:
    """Return one row of the table."""
    baselines, reports, alarmed, alarms, tried, *hits = counts
    low, high = wilson(alarmed, reports)
    power = " | ".join(f"{100 * hit / tried:.0f} %" for hit in hits)
    return (
        f"| {baselines} | {reports} | {100 * alarmed / reports:.1f} % "
        f"({100 * low:.1f} to {100 * high:.1f}) | {alarms} of {reports * METRICS} "
        f"| {power} |"
    )


def merged(lines: list[str]) -> list[list[int]]:
    """Return the sums of the ``counts`` lines that several runs printed, by K."""
    found: dict[int, list[int]] = {}
    for line in lines:
        if match := re.match(r"counts ([\d ]+)$", line.strip()):
            counts = [int(word) for word in match[1].split()]
            old = found.get(counts[0], [0] * len(counts))
            sums = [a + b for a, b in zip(old, counts, strict=True)]
            found[counts[0]] = [counts[0], *sums[1:]]
    return [found[key] for key in sorted(found)]


def main() -> None:
    """Print the counts and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each K")
    parser.add_argument("--baselines", type=int, nargs="+", default=[3, 5, 10])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--merge", action="store_true", help="add up standard input")
    args = parser.parse_args()
    if args.merge:
        results = merged(sys.stdin.readlines())
    else:
        results = [simulate(k, args.seconds, args.seed) for k in args.baselines]
        for counts in results:
            print("counts", *counts)
    print("| K | reports | with an alarm (95 %) | alarms | found +10 % | found +20 % |")
    print("|---|---|---|---|---|---|")
    for counts in results:
        print(row(counts))


if __name__ == "__main__":
    main()
