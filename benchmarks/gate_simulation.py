"""How often the gate is wrong, by simulation: false alarms and power over K baselines.

One new run against K stored ones. Each metric of each run is log-normal (sigma 0.3,
200 samples, p50 compared) times a run's own weather (3 % jitter), independent between
metrics: the hardest case for a whole report. Judged as `report.gate` judges, limit 5 %.

    python benchmarks/gate_simulation.py --seconds 30

Prints for each K: reports simulated, share of unchanged reports with any alarm, alarms
by metric, and the share of metrics found that got slower by 10 and 20 %.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np

from pytest_pd.measure.ratio import compare_runs

METRICS, SAMPLES, SIGMA, JITTER = 50, 200, 0.3, 0.03
ALPHA, LIMIT = 0.03, 0.05


def run_of(rng: np.random.Generator, shift: float = 1.0) -> np.ndarray:
    """Return the samples of one metric in one run."""
    weather = math.exp(rng.normal(0, JITTER))
    return np.exp(rng.normal(-3, SIGMA, SAMPLES)) * shift * weather


def is_alarm(rng: np.random.Generator, baselines: int, shift: float) -> bool:
    """Tell whether the gate calls one metric worse."""
    old = [run_of(rng) for _ in range(baselines)]
    found = compare_runs(
        old, [run_of(rng, shift)], confidence=1 - 2 * ALPHA / METRICS, jitter=JITTER
    )
    return found.low > 1 and found.value > 1 + LIMIT


def simulate(baselines: int, seconds: float) -> str:
    """Return one row of the table."""
    rng = np.random.default_rng(baselines)
    end_s = time.monotonic() + seconds
    reports = alarmed = alarms = tried = 0
    hits = {1.1: 0, 1.2: 0}
    while time.monotonic() < end_s:
        found = sum(is_alarm(rng, baselines, 1.0) for _ in range(METRICS))
        reports, alarms = reports + 1, alarms + found
        alarmed += bool(found)
        for shift in hits:
            hits[shift] += sum(is_alarm(rng, baselines, shift) for _ in range(10))
        tried += 10
    power = " | ".join(f"{100 * hit / tried:.0f} %" for hit in hits.values())
    return (
        f"| {baselines} | {reports} | {100 * alarmed / reports:.1f} % "
        f"| {alarms} of {reports * METRICS} | {power} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each K")
    args = parser.parse_args()
    print(
        "| K | reports | reports with an alarm | alarms | found +10 % | found +20 % |"
    )
    print("|---|---|---|---|---|---|")
    for baselines in (3, 5, 10):
        print(simulate(baselines, args.seconds), flush=True)


if __name__ == "__main__":
    main()
