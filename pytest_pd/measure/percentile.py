"""Exact percentiles: order statistics of all samples, never merged from parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_pd.errors import MeasurementError
from pytest_pd.measure.measurement import Json

Values = NDArray[np.float64] | Sequence[float]
PERCENTILES = (1.0, 5.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9)


def percentile(values: Values, percent: float) -> float:
    """Return the nearest-rank percentile: a value that was really measured.

    Args:
        values: Shape (n,), n >= 1, in any order.
        percent: 0 < percent <= 100; rank ceil(percent / 100 * n).

    Raises:
        MeasurementError: there is no value.

    Source:
        docs/reference/metrics.md, section "Percentiles".
    """
    if not len(values):
        raise MeasurementError("A percentile of no samples was asked for.")
    ordered = np.sort(np.asarray(values, float))
    return float(ordered[_rank(percent, len(ordered))])


def _rank(percent: float, count: int) -> int:
    # 99.9 / 100 * 1000 is 999.0000000000001: a rank must not move by that
    return max(math.ceil(round(percent * count / 100, 9)), 1) - 1


def summary(values: Values) -> dict[str, Json]:
    """Return count, mean, extremes and percentiles by name, ``p50`` and so on."""
    ordered = np.sort(np.asarray(values, float))
    if not len(ordered):
        raise MeasurementError("A summary of no samples was asked for.")
    found: dict[str, Json] = {
        "count": len(ordered),
        "mean": float(ordered.mean()),
        "min": float(ordered[0]),
        "max": float(ordered[-1]),
    }
    for percent in PERCENTILES:
        found[f"p{percent:g}"] = float(ordered[_rank(percent, len(ordered))])
    return found


def with_failures(values: Values, failures: int) -> dict[str, Json]:
    """Return p50, p90 and p99 with every failed request taken as infinitely slow.

    A percentile that falls on a failure is None.
    """
    ordered = np.sort(np.asarray(values, float))
    found: dict[str, Json] = {}
    for percent in (50.0, 90.0, 99.0):
        rank = _rank(percent, len(ordered) + failures)
        found[f"p{percent:g}"] = float(ordered[rank]) if rank < len(ordered) else None
    return found


def thinned(values: NDArray[Any], limit: int) -> NDArray[Any]:
    """Return at most `limit` of `values`: evenly spaced order statistics.

    Unchanged when they are few enough, else sorted, extremes included.
    """
    if len(values) <= limit:
        return values
    ranks = np.linspace(0, len(values) - 1, limit).round().astype(int)
    kept: NDArray[Any] = np.sort(values)[ranks]
    return kept
