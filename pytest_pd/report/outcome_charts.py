"""Accuracy with intervals, refits against their bound, the instrument's error. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pytest_pd.report.chart import Axis, Bar, Bars, Plot, Series
from pytest_pd.report.points import Point
from pytest_pd.report.read import Entry
from pytest_pd.report.scores import has_score, other_score, task_of

Z_95 = 1.959964


def wilson(successes: float, trials: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share.

    Source: E. B. Wilson, JASA 22 (1927) 209; it holds for shares of 0 and 1 too.
    """
    share, z2 = successes / trials, Z_95**2
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    spread = share * (1 - share) / trials + z2 / (4 * trials**2)
    half = Z_95 * math.sqrt(spread) / (1 + z2 / trials)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def accuracy(entries: Iterable[Entry], pairs: Sequence[Mapping[str, Any]] = ()) -> Bars:
    """Return every score, with the interval that its number of samples allows.

    Args:
        pairs: Rows of ``evals/recall_pairs.json``: the same questions, aggregated.
    """
    bars = [bar for entry in entries for bar in _scores(entry)]
    if pairs:
        right = sum(bool(pair.get("right_aggregated")) for pair in pairs)
        low, high = wilson(right, len(pairs))
        words = f"the same questions, aggregated (n = {len(pairs)})"
        bars.append(
            Bar(words, 100 * right / len(pairs), 100 * low, 100 * high, group=1)
        )
    return Bars(
        "accuracy",
        "Accuracy",
        Axis("% right"),
        tuple(bars),
        interval="95 % interval",
        mark="threshold",
    )


def _scores(entry: Entry) -> Iterator[Bar]:
    if not has_score(entry):
        return
    score, task = float(entry.info["score"]), task_of(entry)
    number = max(1, int(entry.info.get("n", len(entry.samples))))
    error = entry.info.get("stderr")
    if isinstance(error, int | float):
        low, high = score - Z_95 * error, score + Z_95 * error
    else:
        low, high = wilson(score * number, number)
    least = entry.info.get("threshold")
    yield Bar(
        f"{task} (n = {number})",
        100 * score,
        100 * max(low, 0.0),
        100 * min(high, 1.0),
        mark=100 * least if isinstance(least, int | float) else None,
    )
    if (other := other_score(entry)) is not None:
        low, high = wilson(other * number, number)
        words = f"{task}, aggregated (n = {number})"
        yield Bar(words, 100 * other, 100 * low, 100 * high, group=1)


def refits(
    entries: Iterable[Entry], outcomes: Sequence[Mapping[str, Any]] = ()
) -> Bars:
    """Return verified refit times against their physical bound.

    Args:
        outcomes: Rows of ``outcomes.json`` as ``pytest-pd refit`` writes it.
    """
    bars = [
        _refit(entry.test, entry.samples, entry.info)
        for entry in entries
        if entry.metric == "refit" and entry.is_valid
    ]
    bars += [
        _refit(str(row.get("name", "")), row["refit_s"], row)
        for row in outcomes
        if row.get("status") == "verified" and row.get("refit_s")
    ]
    return Bars(
        "refit",
        "Refits: median time and range against the bound",
        Axis("ms", is_log=True),
        tuple(bars),
        interval="fastest and slowest",
        mark="bound",
    )


def _refit(name: str, seconds: Sequence[float], info: Mapping[str, Any]) -> Bar:
    times = sorted(1e3 * float(second) for second in seconds)
    bound = info.get("bound_s")
    return Bar(
        name,
        times[(len(times) - 1) // 2],
        times[0],
        times[-1],
        mark=1e3 * bound if isinstance(bound, int | float) and bound > 0 else None,
    )


def instrument(points: Iterable[Point]) -> Plot:
    """Return the instrument's error beside what it measured, over concurrency."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        for name, value_s in _errors(point):
            if point.concurrency is not None:
                place = (point.concurrency, 1e3 * value_s)
                lines.setdefault(name, []).append(place)
    return Plot(
        "instrument",
        "Error of the instrument beside what it measured",
        Axis("streams", is_log=True),
        Axis("ms", is_log=True),
        tuple(Series(name, tuple(sorted(found))) for name, found in lines.items()),
    )


def _errors(point: Point) -> Iterator[tuple[str, float]]:
    truth = (point.any.info.get("instrument") or {}).get("calibration") or {}
    for metric in ("ttft", "itl"):
        error = (truth.get(metric) or {}).get("p99_s")
        measured = point.statistic_s(metric, "p50")
        if error is not None and measured is not None:
            yield f"{metric.upper()} measured, p50", measured
            yield f"{metric.upper()} error, p99", float(error)
