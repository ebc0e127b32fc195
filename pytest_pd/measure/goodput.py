"""Goodput: requests per second that a user would call good enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pytest_pd.errors import MeasurementError
from pytest_pd.load.result import ENDS_ONLY, LoadResult, RequestTrace
from pytest_pd.measure.latency import e2e_s, has_tpot, itl_s, tpot_s, ttft_s
from pytest_pd.measure.measurement import Json, Measurement
from pytest_pd.measure.provenance import describe
from pytest_pd.spec.slo import SloSpec
from pytest_pd.spec.workload import WorkloadSpec


@dataclass(frozen=True, slots=True)
class Goodput:
    """How many requests met every limit.

    Attributes:
        good, sent: Requests; failed ones are sent and not good.
        window_s: From the first send to the last end of a success: what hangs until
            its time is over makes the others no slower.
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
        MeasurementError: nothing was sent, there is no limit to meet, or one of gaps
            that were not recorded.
    """
    if slo.is_empty:
        raise MeasurementError("An SLO without a limit is met by anything.")
    if slo.itl_ms and result.instrument.stamp_source == ENDS_ONLY:
        raise MeasurementError(
            "An SLO of itl wants every gap, and the run has the times of the first and "
            "last event only.",
            hint="limit tpot instead",
        )
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
    last = max((t.end_ns for t in traces if t.is_ok), default=first)
    return Goodput(good, len(traces), (last - first) / 1e9, misses)


def slo_of(*given: SloSpec | None) -> SloSpec | None:
    """Return the first of `given` that has a limit."""
    return next((slo for slo in given if slo is not None and not slo.is_empty), None)


def goodput_measurements(result: LoadResult, slo: SloSpec) -> list[Measurement]:
    """Return the time per request that met `slo`; nothing where none did.

    Raises:
        MeasurementError: as `goodput`.
    """
    found = goodput(result, slo)
    if not found.good:
        return []
    extra: dict[str, Json] = {
        **describe(result),
        "goodput_requests_per_s": found.requests_per_s,
        "goodput_share": found.share,
        "slo": slo.model_dump(),
        "misses": dict(found.misses),
    }
    time_s = 1 / found.requests_per_s
    return [Measurement("goodput_time", (time_s,), unit="s/request", extra=extra)]


def searched(named: Iterable[WorkloadSpec]) -> WorkloadSpec | None:
    """Return the workload whose prompts a search for goodput sends.

    The first of an open loop, else the first with an SLO, else the first. Traces and
    conversations keep to their own times, and are left out.
    """
    fit = [workload for workload in named if workload.kind == "synthetic"]
    return min(fit, key=lambda w: (not w.rate_per_s, w.slo is None), default=None)


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
    step: float = 4.0,
    tolerance: float = 0.1,
    max_trials: int = 12,
) -> tuple[float | None, list[Trial]]:
    """Search the highest rate that meets the goal.

    It climbs by `step` to the first rate that misses, for a rate far above it keeps a
    server busy long after the trial; then it bisects the logarithm of the rate.

    Args:
        try_rate: Runs one rate.
        low_per_s, high_per_s: Bounds; widened downwards never, upwards never.
        tolerance: Stop when the bounds are within this share of each other.

    Returns:
        The highest good rate, None if even the lowest is not good; and every
        trial, in order. Where all of them are good the rate is a lower bound.
    """
    trials: list[Trial] = []
    low, high, rate = None, None, low_per_s
    while len(trials) < max_trials:
        trials.append(trial := try_rate(rate))
        low, high = (rate, high) if trial.is_good else (low, rate)
        if low is None or (high is None and low >= high_per_s):
            break
        if high is not None and high / low <= 1 + tolerance:
            break
        rate = min(low * step, high_per_s) if high is None else math.sqrt(low * high)
    return low, trials


def search_figures(trials: Sequence[Trial]) -> dict[str, Json]:
    """Return what a search says beside its result, and whether that is a bound."""
    is_bound = all(trial.is_good for trial in trials)
    told = "no rate that was tried misses the SLO: the goodput is at least this"
    return {
        "is_bound": is_bound,
        **({"bound": told} if is_bound else {}),
        "trials": [{"rate_per_s": t.rate_per_s, "share": t.share} for t in trials],
    }
