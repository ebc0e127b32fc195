"""Open-loop schedules: seeded, computed once, dealt to the shards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pytest_pd.errors import SpecError
from pytest_pd.load.clock import NS
from pytest_pd.load.point import Arrivals, LoadPoint
from pytest_pd.load.prompts import Prompt

Offsets = NDArray[np.int64]


def arrival_offsets_ns(point: LoadPoint, prompts: Sequence[Prompt]) -> Offsets:
    """Return when each prompt shall start, ns after the start, ascending.

    A Poisson process stays one: nothing is rescaled so that the last request
    lands on N / rate.

    Args:
        point: Kind and rate of the arrivals, ramp and seed.
        prompts: The prompts that follow none; traces bring their own times.

    Raises:
        SpecError: a trace entry has no time.
    """
    if point.arrivals is Arrivals.TRACE:
        return _trace_offsets_ns(prompts)
    if point.arrivals is Arrivals.BURST:
        return np.zeros(len(prompts), np.int64)
    gaps = _unit_gaps(point, len(prompts))
    times_s = _stretch(np.cumsum(gaps) - gaps[:1], point)
    return np.asarray(times_s * NS, np.int64)


def _unit_gaps(point: LoadPoint, count: int) -> NDArray[np.float64]:
    """Return inter-arrival times of mean 1."""
    generator = np.random.default_rng(point.seed)
    if point.arrivals is Arrivals.CONSTANT:
        return np.ones(count)
    shape = point.burstiness if point.arrivals is Arrivals.GAMMA else 1.0
    return generator.gamma(shape, 1.0 / shape, count)


def _stretch(work: NDArray[np.float64], point: LoadPoint) -> NDArray[np.float64]:
    """Turn expected counts into times: the inverse of the integral of the rate.

    With a linear ramp over R seconds to rate r, t seconds bring r t^2 / (2 R)
    requests during it, and r (t - R / 2) afterwards.
    """
    assert point.rate_per_s
    rate, ramp_s = point.rate_per_s, point.ramp_s
    if ramp_s <= 0:
        return work / rate
    in_ramp = np.sqrt(2 * ramp_s * work / rate)
    return np.where(work < rate * ramp_s / 2, in_ramp, work / rate + ramp_s / 2)


def _trace_offsets_ns(prompts: Sequence[Prompt]) -> Offsets:
    missing = [k for k, prompt in enumerate(prompts) if prompt.at_s is None]
    if missing:
        raise SpecError(
            f"Prompt {missing[0]} of the trace has no time.",
            hint="set at_s on every prompt that follows none",
        )
    first = min((prompt.at_s or 0.0 for prompt in prompts), default=0.0)
    times = [(prompt.at_s or 0.0) - first for prompt in prompts]
    if sorted(times) != times:
        raise SpecError("The times of the trace are not ascending.")
    return np.array([int(t * NS) for t in times], np.int64)
