"""How much figures scatter from run to run, learned from many metrics together.

Five runs say little about the scatter of one metric, and fifty metrics of five runs say
a lot: a gate that judges them one by one is blind. The scatter of the other metrics is
the assumption for each (empirical Bayes), worth as much as they agree with each other
and as far as they are independent.

Source: G. K. Smyth, Stat. Appl. Genet. Mol. Biol. 3 (2004) 3, with moments instead of
log moments; the number of independent metrics by their mean squared correlation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pytest_pd.measure.ratio import JITTER_WEIGHT

Floats = NDArray[np.float64]
LEAST_METRICS = 8
"""Metrics below which nothing is learned from the others."""
LEAST_RUNS = 3
CAUTION = 1.5
"""Standard errors by which metrics are taken to differ more than they seem to."""
FLOOR = 0.25
"""Share of the assumed scatter below which no learned one goes."""


@dataclass(frozen=True, slots=True)
class Assumed:
    """Scatter from run to run, and the degrees of freedom it is worth."""

    jitter: float
    weight: float = JITTER_WEIGHT


def pooled(
    logs: Sequence[Sequence[float]],
    errors: Sequence[Sequence[float]],
    jitter: float,
) -> list[Assumed]:
    """Return what to assume for each metric, learned from the others.

    Args:
        logs: For each metric the log of its figure in each baseline run.
        errors: The same shape: relative standard error inside the run.
        jitter: Assumed before anything was seen, worth `JITTER_WEIGHT`.
    """
    plain = [Assumed(jitter)] * len(logs)
    usual = _usual_length([len(row) for row in logs])
    mine = [i for i, row in enumerate(logs) if len(row) == usual]
    if usual < LEAST_RUNS or len(mine) < LEAST_METRICS:
        return plain
    values = np.array([logs[i] for i in mine], float)
    inside = np.array([errors[i] for i in mine], float)
    learned = _learn(values, (inside**2).mean(1), jitter)
    for index, assumed in zip(mine, learned, strict=True):
        plain[index] = assumed
    return plain


def _usual_length(lengths: Sequence[int]) -> int:
    """Return the most frequent length, the longer one of two; 0 for none."""
    counts = {length: lengths.count(length) for length in lengths}
    return max(counts, key=lambda length: (counts[length], length), default=0)


def _learn(values: Floats, inside: Floats, jitter: float) -> list[Assumed]:
    runs = values.shape[1]
    residuals = values - values.mean(1, keepdims=True)
    variances = (residuals**2).sum(1) / (runs - 1)
    weight = min(
        agreement(variances, runs - 1),
        (independent(residuals) - 1) * (runs - 1),
    )
    # what scatters inside the runs is added by the comparison: not counted twice; a
    # metric whose error is larger than its scatter takes nothing from the others
    between = np.maximum(variances - inside, 0.0)
    others = (between.sum() - between) / (len(between) - 1)
    floor = (FLOOR * jitter) ** 2
    found = []
    learned = max(weight, 0.0)
    for variance in np.maximum(others, floor):
        # an assumption that the runs deny loses its weight
        trusted = JITTER_WEIGHT / max(1.0, variance / jitter**2)
        mean = (trusted * jitter**2 + learned * variance) / (trusted + learned)
        # metrics that differ among themselves are no better known for the guess
        found.append(Assumed(math.sqrt(mean), max(trusted, learned)))
    return found


def agreement(variances: Floats, degrees: int) -> float:
    """Return the degrees of freedom that the metrics' common variance is worth.

    Few where the variances differ by more than chance: with a common variance their
    squared coefficient of variation is 2 / degrees. How far they differ is itself
    uncertain, and taken `CAUTION` standard errors (jackknife) higher than it looks.
    """
    if variances.mean() <= 0:
        return 0.0
    seen = _squared_variation(variances)
    without = np.array(
        [_squared_variation(np.delete(variances, i)) for i in range(len(variances))]
    )
    error = math.sqrt((len(without) - 1) * without.var())
    excess = (seen + CAUTION * error - 2 / degrees) / (1 + 2 / degrees)
    return math.inf if excess <= 0 else 4 + 2 / excess


def _squared_variation(values: Floats) -> float:
    mean = float(values.mean())
    return float(values.var(ddof=1)) / mean**2 if mean > 0 else 0.0


def independent(residuals: Floats) -> float:
    """Return how many independent metrics the rows are worth, 1 at least.

    Rows that rise and fall together say the same thing. By chance alone the squared
    correlation of two rows is 1 / degrees on the average.
    """
    runs = residuals.shape[1]
    sizes = np.sqrt((residuals**2).sum(1, keepdims=True))
    rows = residuals[(sizes > 0).ravel()] / sizes[sizes > 0][:, None]
    if len(rows) < 2:
        return 1.0
    squares = (rows @ rows.T) ** 2
    seen = (squares.sum() - len(rows)) / (len(rows) * (len(rows) - 1))
    chance = 1 / (runs - 1)
    shared = max((seen - chance) / (1 - chance), 0.0)
    return float(len(rows) / (1 + (len(rows) - 1) * shared))
