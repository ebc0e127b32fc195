"""Goodput: requests per second that a user would call good enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pytest_pd.errors import MeasurementError
from pytest_pd.load.result import LoadResult, RequestTrace
from pytest_pd.measure.latency import e2e_s, has_tpot, itl_s, tpot_s, ttft_s
from pytest_pd.spec.slo import SloSpec


@dataclass(frozen=True, slots=True)
class Goodput:
    """How many requests met every limit.

    Attributes:
        good, sent: Requests; failed ones are sent and not good.
        window_s: From the first send to the last end.
        misses: Limit to how many successful requests missed it.
    """

    good: int
    sent: int
    window_s: float
    misses: dict[str, int]

    @property
    def share(self) -> float:
        return self.good / self.sent if self.sent else 0.0

    @property
    def requests_per_s(self) -> float:
        return self.good / self.window_s if self.window_s else 0.0


def missed_limits(trace: RequestTrace, slo: SloSpec, lateness_s: float) -> list[str]:
    """Return the limits that a successful request misses.

    Args:
        lateness_s: Added to TTFT and E2E: an open loop is judged from the intended
            send, for that is when the user came.
    """
    missed = []
    if slo.ttft_ms and ttft_s(trace) + lateness_s > slo.ttft_ms / 1e3:
        missed.append("ttft")
    if slo.e2e_ms and e2e_s(trace) + lateness_s > slo.e2e_ms / 1e3:
        missed.append("e2e")
    if slo.tpot_ms and has_tpot(trace) and tpot_s(trace) > slo.tpot_ms / 1e3:
        missed.append("tpot")
    gaps = itl_s(trace)
    if slo.itl_ms and len(gaps) and float(gaps.max()) > slo.itl_ms / 1e3:
        missed.append("itl")
    return missed


def goodput(result: LoadResult, slo: SloSpec) -> Goodput:
    """Count the requests of `result` that met `slo`.

    Raises:
        MeasurementError: nothing was sent, or there is no limit to meet.
    """
    if slo.is_empty:
        raise MeasurementError("An SLO without a limit is met by anything.")
    traces = [t for t in result.traces() if t.sent_before_ns]
    if not traces:
        raise MeasurementError("No request was sent.")
    misses: dict[str, int] = {}
    good = 0
    for trace in traces:
        if not trace.is_ok:
            continue
        late_ns = trace.sent_before_ns - trace.intended_ns
        missed = missed_limits(
            trace, slo, late_ns / 1e9 if result.point.is_open else 0.0
        )
        good += not missed
        for name in missed:
            misses[name] = misses.get(name, 0) + 1
    first = min(t.sent_before_ns for t in traces)
    last = max(t.end_ns for t in traces)
    return Goodput(good, len(traces), (last - first) / 1e9, misses)


@dataclass(frozen=True, slots=True)
class Trial:
    """One rate that was tried.

    Attributes:
        rate_per_s: Offered.
        is_good: It met the goal.
        share: Requests that met the SLO, over all sent.
    """

    rate_per_s: float
    is_good: bool
    share: float


def highest_rate(
    try_rate: Callable[[float], Trial],
    *,
    low_per_s: float,
    high_per_s: float,
    tolerance: float = 0.1,
    max_trials: int = 12,
) -> tuple[float | None, list[Trial]]:
    """Search the highest rate that meets the goal, by bisection of its logarithm.

    Args:
        try_rate: Runs one rate.
        low_per_s, high_per_s: Bounds; widened downwards never, upwards never.
        tolerance: Stop when the bounds are within this share of each other.

    Returns:
        The highest good rate, None if even the lowest is not good; and every
        trial, in order.
    """
    trials = [try_rate(low_per_s)]
    if not trials[0].is_good:
        return None, trials
    trials.append(try_rate(high_per_s))
    if trials[1].is_good:
        return high_per_s, trials
    low, high = low_per_s, high_per_s
    while high / low > 1 + tolerance and len(trials) < max_trials:
        middle = float(np.sqrt(low * high))
        trials.append(try_rate(middle))
        if trials[-1].is_good:
            low = middle
        else:
            high = middle
    return low, trials
