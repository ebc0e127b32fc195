"""Where does a series of runs change its level? Standard library and numpy.

Binary segmentation: the split with the largest t statistic counts as a change if its
chance is below `alpha` even after all splits that were tried; then both parts are
searched again. The scatter between runs is weighed against an assumption, as in
`ratio.run_scatter`, so that three lucky nights are no proof.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pytest_pd.measure.ratio import JITTER, run_scatter

LEAST_RUNS = 3
"""Runs on each side of a change: one or two odd nights are no new level."""


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """A new level.

    Attributes:
        index: First value of the new level.
        ratio: New level over old level; above 1 is worse.
        p_value: Chance of it anywhere in a series that did not change.
    """

    index: int
    ratio: float
    p_value: float


def change_points(
    values: Sequence[float],
    *,
    alpha: float = 0.01,
    effect: float = 0.0,
    jitter: float = JITTER,
) -> list[ChangePoint]:
    """Return the changes of level, in order.

    Args:
        values: Shape (n,), above 0, one for each run, oldest first.
        alpha: Chance to find any change in a series without one.
        effect: Smallest change that is told, as a share.
    """
    logs = np.log(np.asarray(values, float))
    found = _search(logs, 0, alpha, jitter, max(len(logs) - 2 * LEAST_RUNS + 1, 1))
    return [point for point in sorted(found, key=_index) if _size(point.ratio) > effect]


def _index(point: ChangePoint) -> int:
    return point.index


def _size(ratio: float) -> float:
    return max(ratio, 1 / ratio) - 1


def _search(
    logs: np.ndarray, start: int, alpha: float, jitter: float, tries: int
) -> list[ChangePoint]:
    best = best_split(logs, jitter)
    if best is None or best.p_value * tries >= alpha:
        return []
    at = best.index
    told = ChangePoint(start + at, best.ratio, min(best.p_value * tries, 1.0))
    return [
        *_search(logs[:at], start, alpha, jitter, tries),
        told,
        *_search(logs[at:], start + at, alpha, jitter, tries),
    ]


def best_split(logs: np.ndarray, jitter: float = JITTER) -> ChangePoint | None:
    """Return the most unlikely split of a series, its chance for this split alone."""
    best: ChangePoint | None = None
    for at in range(LEAST_RUNS, len(logs) - LEAST_RUNS + 1):
        old, new = logs[:at], logs[at:]
        scatter, degrees = run_scatter([old, new], jitter)
        step = float(new.mean() - old.mean())
        t = step / (scatter * math.sqrt(1 / len(old) + 1 / len(new)))
        p = 2 * student_tail(abs(t), degrees)
        if best is None or p < best.p_value:
            best = ChangePoint(at, math.exp(step), p)
    return best


def student_tail(t: float, degrees: float) -> float:
    """Return P(T > t) for Student's t, t >= 0.

    Source: Abramowitz & Stegun 26.5.27 with the continued fraction 26.5.8 of the
    incomplete beta function.
    """
    x = degrees / (degrees + t * t)
    return 0.5 * _beta_share(x, degrees / 2, 0.5)


def _beta_share(x: float, a: float, b: float) -> float:
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta_share(1 - x, b, a)
    front = math.exp(
        math.lgamma(a + b)
        - math.lgamma(a)
        - math.lgamma(b)
        + a * math.log(x)
        + b * math.log1p(-x)
    )
    return front * _fraction(x, a, b) / a


def _fraction(x: float, a: float, b: float, most: int = 300) -> float:
    """Evaluate the continued fraction from its tail."""
    value = 1.0
    for m in range(most, 0, -1):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        value = 1 + even / (1 + odd / value)
    first = -(a + b) * x / (a + 1)
    return 1 / (1 + first / value)
