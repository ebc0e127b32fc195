"""How often the gate is wrong, by simulation: false alarms and power over K baselines.

One new run against K stored ones, 50 metrics with limits of 5 %. Each metric of a run
is log-normal (sigma 0.3, 200 samples, p50 compared) times the run's own weather. Cases:

equal    3 % weather, independent between metrics
shared   3 % weather, half of its variance common to all metrics of a run
unequal  weather from 1 % to 6 % by metric (log-uniform); the gate assumes 3 % for all

Judged as `report.gate` judges: scatter pooled over metrics, then each figure.

    python -m benchmarks.gate_simulation --case equal --baselines 5 --seconds 100

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
from statistics import NormalDist

import numpy as np

from pytest_pd.measure.pool import Assumed, pooled
from pytest_pd.measure.ratio import Summary, compare_runs, run_scatter
from pytest_pd.report.outcome_charts import wilson
from pytest_pd.spec.gate import GateSpec

METRICS, SAMPLES, SIGMA, JITTER = 50, 200, 0.3, 0.03
ALPHA, LIMIT = GateSpec.model_fields["alpha"].default, 0.05
POWER_EVERY = 5
"""Reports for one in which slower figures are looked for."""
CASES = ("equal", "shared", "unequal")


def report_of(rng: np.random.Generator, jitters: np.ndarray, shared: float):
    """Return one run: samples of shape (METRICS, SAMPLES)."""
    common, own = rng.normal(), rng.normal(size=METRICS)
    weather = jitters * (math.sqrt(shared) * common + math.sqrt(1 - shared) * own)
    samples = np.exp(rng.normal(-3, SIGMA, (METRICS, SAMPLES)) + weather[:, None])
    return np.sort(samples, axis=1)


def errors_of(run: np.ndarray) -> np.ndarray:
    """Return the relative error of each p50: half the log ratio at one deviation."""
    half = round(math.sqrt(SAMPLES) / 2)
    middle = SAMPLES // 2
    return np.log(run[:, middle + half] / run[:, middle - half]) / 2


def may_be_worse(old: np.ndarray, new: float, assumed: Assumed) -> bool:
    """Tell whether an interval is worth making: it might exclude 1.

    Its half is at least the normal quantile times the scatter between runs; Student's
    and the noise inside of the runs only widen it. The tenth is for the draws.
    """
    over = float(new - old.mean())
    one = np.array([new])
    scatter, _ = run_scatter([old, one], assumed.jitter, assumed.weight)
    least = NormalDist().inv_cdf(1 - ALPHA / METRICS)
    share = math.sqrt(1 / len(old) + 1)
    return over > max(math.log(1 + LIMIT), 0.9 * least * scatter * share)


def judged(old: list[Summary], new: np.ndarray, assumed: Assumed) -> bool:
    """Tell whether the gate calls one metric worse."""
    found = compare_runs(
        old,
        [new],
        confidence=1 - 2 * ALPHA / METRICS,
        jitter=assumed.jitter,
        weight=assumed.weight,
    )
    return found.low > 1 and found.value > 1 + LIMIT


def simulate(case: str, baselines: int, seconds: float, seed: int) -> list[int]:
    """Return K, reports, reports with an alarm, alarms, tried, found +10 %, +20 %."""
    rng = np.random.default_rng([baselines, seed])
    shared = 0.5 if case == "shared" else 0.0
    end_s = time.monotonic() + seconds
    reports = alarmed = alarms = tried = 0
    hits = {1.1: 0, 1.2: 0}
    middle = math.ceil(SAMPLES / 2) - 1
    while time.monotonic() < end_s:
        jitters = np.full(METRICS, JITTER)
        if case == "unequal":
            jitters = np.exp(rng.uniform(math.log(0.01), math.log(0.06), METRICS))
        *old, new = (report_of(rng, jitters, shared) for _ in range(baselines + 1))
        logs = np.log([run[:, middle] for run in old]).T
        errors = np.array([errors_of(run) for run in old]).T
        assumed = pooled(logs.tolist(), errors.tolist(), JITTER)
        known = [list(map(Summary, np.exp(logs[m]), errors[m])) for m in range(METRICS)]
        figures = np.log(new[:, middle])
        found = sum(
            may_be_worse(logs[m], figures[m], assumed[m])
            and judged(known[m], new[m], assumed[m])
            for m in range(METRICS)
        )
        reports, alarms = reports + 1, alarms + found
        alarmed += bool(found)
        if reports % POWER_EVERY:
            continue
        metric = int(rng.integers(METRICS))
        for shift in hits:
            hits[shift] += judged(known[metric], new[metric] * shift, assumed[metric])
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
    parser.add_argument("--case", choices=CASES, default="equal")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--merge", action="store_true", help="add up standard input")
    args = parser.parse_args()
    if args.merge:
        results = merged(sys.stdin.readlines())
    else:
        results = [
            simulate(args.case, k, args.seconds, args.seed) for k in args.baselines
        ]
        for counts in results:
            print("counts", *counts)
    print("| K | reports | with an alarm (95 %) | alarms | found +10 % | found +20 % |")
    print("|---|---|---|---|---|---|")
    for counts in results:
        print(row(counts))


if __name__ == "__main__":
    main()
