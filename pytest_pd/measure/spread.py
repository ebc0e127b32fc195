"""Is work spread evenly over workers? A chi-squared test, standard library only."""

from __future__ import annotations

import math
from collections.abc import Sequence

ALPHA = 1e-5
"""Chance of calling an even random router uneven: one run in 100,000."""


def even_p_value(counts: Sequence[float]) -> float:
    """Return how likely counts at least this uneven are under an even router.

    Pearson's chi-squared against equal expectations, ``len(counts) - 1`` degrees
    of freedom. Fewer than two workers are always even.

    Args:
        counts: Requests per worker, shape (n,), at least 5 expected each for the
            approximation to hold.
    """
    if len(counts) < 2 or not sum(counts):
        return 1.0
    mean = sum(counts) / len(counts)
    statistic = sum((count - mean) ** 2 for count in counts) / mean
    return chi_squared_tail(statistic, len(counts) - 1)


def chi_squared_tail(statistic: float, degrees: int) -> float:
    """Return P(X >= statistic) for X chi-squared with `degrees` degrees of freedom.

    Source: Abramowitz & Stegun 26.4.4 and 26.4.5, the finite sums for odd and
    even degrees.
    """
    if statistic <= 0:
        return 1.0
    half = statistic / 2
    if degrees % 2 == 0:
        term, total = 1.0, 1.0
        for i in range(1, degrees // 2):
            term *= half / i
            total += term
        return math.exp(-half) * total
    total = math.erfc(math.sqrt(half))
    term = math.exp(-half) * math.sqrt(half / math.pi) * 2
    for i in range(1, degrees // 2 + 1):
        total += term
        term *= half / (i + 0.5)
    return total
