"""How often the gates are wrong: false alarms and power, by simulation.

Samples are right with the model's accuracy. "Noise" is the share of samples whose
answer another batch composition turns, either way, with nothing lost: 0 where tokens
are exact. A drop turns that share of all samples from right to wrong.

    python benchmarks/evals/gate_power.py --runs 1000

Prints a Markdown table: share of runs that failed, by gate, samples and drop. A drop of
0 is the false-alarm rate, which must stay below alpha.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache

import numpy as np

from pytest_pd.evals.gate import (
    Limits,
    Outcome,
    drift_gate,
    paired_gate,
    reference_gate,
)

ACCURACY = 0.9
DROPS = (0.0, 0.02, 0.05, 0.10, 0.20)
LIMITS = Limits(alpha=0.01)
Run = Callable[[np.random.Generator, int, float], bool]


def answers(rng: np.random.Generator, n: int, drop: float = 0.0) -> np.ndarray:
    """Return right or wrong per sample."""
    return rng.random(n) < ACCURACY - drop


def pairs(rng: np.random.Generator, n: int, drop: float, noise: float) -> bool:
    """Tell whether the paired gate fails."""
    one = answers(rng, n)
    other = np.where(rng.random(n) < noise, answers(rng, n), one)
    other &= rng.random(n) >= drop / ACCURACY
    lost, gained = int((one & ~other).sum()), int((~one & other).sum())
    return _paired(n, lost, gained)


@cache
def _paired(n: int, lost: int, gained: int) -> bool:
    rest = n - lost - gained
    one = [True] * lost + [False] * gained + [True] * rest
    other = [False] * lost + [True] * gained + [True] * rest
    return paired_gate(one, other, LIMITS).outcome is Outcome.FAILED


def reference(rng: np.random.Generator, n: int, drop: float) -> bool:
    """Tell whether the reference gate fails."""
    return _reference(n, int(answers(rng, n, drop).sum()))


@cache
def _reference(n: int, right: int) -> bool:
    return reference_gate(right, n, ACCURACY, LIMITS).outcome is Outcome.FAILED


def drift(rng: np.random.Generator, n: int, drop: float) -> bool:
    """Tell whether the drift gate fails when the drop starts at the half."""
    right = answers(rng, n)
    right[n // 2 :] &= rng.random(n - n // 2) >= drop / ACCURACY
    third = n // 3
    return _drift(n, int(right[:third].sum()), int(right[-third:].sum()))


@cache
def _drift(n: int, first: int, last: int) -> bool:
    third = n // 3
    ends = [[i < count for i in range(third)] for count in (first, last)]
    middle = [True] * (n - 2 * third)
    return drift_gate(ends[0] + middle + ends[1], LIMITS).outcome is Outcome.FAILED


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--only", default="", help="gates whose name holds this")
    args = parser.parse_args()
    gates: dict[str, Run] = {
        "paired, no noise": lambda rng, n, drop: pairs(rng, n, drop, 0.0),
        "paired, 5 % noise": lambda rng, n, drop: pairs(rng, n, drop, 0.05),
        "paired, 20 % noise": lambda rng, n, drop: pairs(rng, n, drop, 0.20),
        "reference": reference,
        "drift, from the half on": drift,
    }
    print(f"| gate | n | {' | '.join(f'drop {drop:.0%}' for drop in DROPS)} |")
    print(f"|---|---|{'---|' * len(DROPS)}")
    for name, gate in gates.items():
        if args.only not in name:
            continue
        for n in (200, 400, 1319):
            rng = np.random.default_rng(n)
            shares = [
                sum(gate(rng, n, drop) for _ in range(args.runs)) / args.runs
                for drop in DROPS
            ]
            told = " | ".join(f"{share:.1%}" for share in shares)
            print(f"| {name} | {n} | {told} |", flush=True)


if __name__ == "__main__":
    main()
