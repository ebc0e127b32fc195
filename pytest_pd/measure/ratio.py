"""Did it get slower? A ratio of two sets of runs, with an interval for both noises.

Samples of one run share its weather (clocks, placement, neighbours), so a test over
samples alone calls half of all changes real. Here the samples inside each run are
resampled, and the scatter from run to run is added on top.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pytest_pd.errors import MeasurementError
from pytest_pd.measure.percentile import percentile

Floats = NDArray[np.float64]
DRAWS = 20_000
ERROR_DRAWS = 2_000
"""Enough for a standard error, to two percent of itself."""
JITTER = 0.03
"""Standard deviation of the log of a figure from run to run, before any is seen."""
JITTER_WEIGHT = 4.0
"""Degrees of freedom that the assumption is worth."""
RESAMPLE_LIMIT = 4_000_000
"""Values above which a mean's resampling is replaced by its normal limit."""


class Change(StrEnum):
    """What can be said about a figure; bigger is worse."""

    WORSE = "worse"
    BETTER = "better"
    SAME = "same"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True)
class Ratio:
    """New over old.

    Attributes:
        value: Of the typical run; above 1 is worse.
        low, high: Interval at the confidence asked for.
        jitter: Scatter from run to run that went into it, as a share.
        old, new: The typical figures, in the unit of the samples.
        old_runs, new_runs: How many runs each side had.
    """

    value: float
    low: float
    high: float
    jitter: float
    old: float
    new: float
    old_runs: int
    new_runs: int

    def change(self, effect: float) -> Change:
        """Judge against the smallest change that matters, as a share above 0.

        Worse and better have to be both certain and large; the same has to be
        shown, too: the whole interval is inside of the effect.
        """
        limit = 1 + effect
        if self.low > 1 and self.value > limit:
            return Change.WORSE
        if self.high < 1 and self.value < 1 / limit:
            return Change.BETTER
        if self.low > 1 / limit and self.high < limit:
            return Change.SAME
        return Change.CANNOT_TELL


@dataclass(frozen=True, slots=True)
class Summary:
    """One run without its samples.

    Attributes:
        value: Of the statistic, above 0.
        error: Relative standard error of it inside the run.
    """

    value: float
    error: float


Run = Sequence[float] | Summary
"""What is known of one run: its samples, or the statistic with its error."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sides of runs, ready to be asked at any confidence.

    Attributes:
        middle: Log of new over old.
        noise: Draws of how far `middle` is off, shape (DRAWS,).
        jitter: Scatter from run to run that went into it.
        old, new: Log of the typical figure of each side.
        old_runs, new_runs: How many runs each side had.
    """

    middle: float
    noise: Floats
    jitter: float
    old: float
    new: float
    old_runs: int
    new_runs: int

    def ratio(self, confidence: float) -> Ratio:
        """Return the ratio with its two-sided interval."""
        tail = (1 - confidence) / 2
        low, high = np.quantile(self.noise, [tail, 1 - tail])
        return Ratio(
            value=math.exp(self.middle),
            low=math.exp(self.middle + low),
            high=math.exp(self.middle + high),
            jitter=self.jitter,
            old=math.exp(self.old),
            new=math.exp(self.new),
            old_runs=self.old_runs,
            new_runs=self.new_runs,
        )


def statistic_of(samples: Sequence[float], name: str) -> float:
    """Return ``mean`` or a nearest-rank percentile, ``p50`` and so on.

    Raises:
        MeasurementError: no such statistic.
    """
    if name == "mean":
        return float(np.mean(samples))
    return percentile(samples, _percent(name))


def _percent(name: str) -> float:
    try:
        percent = float(name.removeprefix("p"))
    except ValueError:
        percent = 0.0
    if not name.startswith("p") or not 0 < percent <= 100:
        raise MeasurementError(
            f"{name!r} is no statistic.", hint="write mean, p50, p90 or p99"
        )
    return percent


def compare_runs(
    old: Sequence[Run],
    new: Sequence[Run],
    *,
    statistic: str = "p50",
    confidence: float = 0.95,
    jitter: float = JITTER,
    weight: float = JITTER_WEIGHT,
    seed: int = 0,
) -> Ratio:
    """Compare runs of samples of one metric.

    Args:
        confidence: Of the two-sided interval.
        old, new, statistic, jitter, weight, seed: See `comparison`.
    """
    return comparison(
        old, new, statistic=statistic, jitter=jitter, weight=weight, seed=seed
    ).ratio(confidence)


def comparison(
    old: Sequence[Run],
    new: Sequence[Run],
    *,
    statistic: str = "p50",
    jitter: float = JITTER,
    weight: float = JITTER_WEIGHT,
    seed: int = 0,
) -> Comparison:
    """Compare runs of samples of one metric, for any confidence.

    Args:
        old, new: Samples or summary of each run; the statistic of each is above 0.
        statistic: What is compared, see `statistic_of`.
        jitter: Assumed scatter from run to run; the runs given correct it.
        weight: Degrees of freedom that the assumption is worth.

    Raises:
        MeasurementError: a side is empty, or a statistic is not above 0.

    Source:
        docs/reference/report.md, section "When is a change a change".
    """
    _check(old, new, statistic)
    rng = np.random.default_rng(seed)
    logs = [_logs(side, statistic) for side in (old, new)]
    scatter, degrees = run_scatter(logs, jitter, weight)
    share = math.sqrt(1 / len(old) + 1 / len(new))
    runs = scatter * share * rng.permutation(student(degrees))
    noise = _sampling(new, statistic, rng) - _sampling(old, statistic, rng) + runs
    return Comparison(
        middle=float(logs[1].mean() - logs[0].mean()),
        noise=noise,
        jitter=scatter,
        old=float(logs[0].mean()),
        new=float(logs[1].mean()),
        old_runs=len(old),
        new_runs=len(new),
    )


def run_scatter(
    logs: Sequence[Floats], jitter: float, weight: float = JITTER_WEIGHT
) -> tuple[float, float]:
    """Return scatter from run to run and its degrees of freedom.

    What the runs show inside each side, weighed against the assumption: the
    posterior mean of a variance under a scaled inverse chi-squared prior.
    """
    degrees = sum(len(side) - 1 for side in logs)
    squares = sum(float(((side - side.mean()) ** 2).sum()) for side in logs)
    total = degrees + weight
    return math.sqrt((squares + weight * jitter**2) / total), total


@lru_cache(maxsize=32)
def student(degrees: float) -> Floats:
    """Return Student t at the middles of `DRAWS` equal parts of probability, ascending.

    Random draws leave a tail of eight values to chance, and the same chance each time.
    """
    ends = np.sinh(np.linspace(0.0, math.asinh(1e4), 8192))
    density = (1 + ends**2 / degrees) ** (-(degrees + 1) / 2)
    parts = np.diff(ends) * (density[1:] + density[:-1])
    below = np.concatenate([[0.0], parts.cumsum()])
    wanted = (np.arange(DRAWS // 2) + 0.5) / (DRAWS // 2)
    half = np.interp(wanted * below[-1], below, ends)
    found = np.concatenate([-half[::-1], half])
    found.flags.writeable = False
    return found


def has_ratio(samples: Sequence[float], statistic: str) -> bool:
    """Tell whether a statistic can be compared: it is above 0.

    Gaps between tokens that shared one read are 0, and so can their median be.
    """
    return bool(len(samples)) and statistic_of(samples, statistic) > 0


def _check(old: Sequence[Run], new: Sequence[Run], statistic: str) -> None:
    for side in (old, new):
        sampled = [run for run in side if not isinstance(run, Summary)]
        if not side or not all(len(run) for run in sampled):
            raise MeasurementError("A comparison has a side without samples.")
        if not all(has_ratio(run, statistic) for run in sampled):
            raise MeasurementError(
                f"A {statistic} of 0 or below has no ratio.",
                hint="compare another statistic or metric",
            )


def _logs(runs: Sequence[Run], statistic: str) -> Floats:
    return np.log(
        [
            run.value if isinstance(run, Summary) else statistic_of(run, statistic)
            for run in runs
        ]
    )


def _sampling(runs: Sequence[Run], statistic: str, rng: np.random.Generator) -> Floats:
    """Return draws of how far the side's mean log statistic is off, shape (DRAWS,)."""
    known = [run.error for run in runs if isinstance(run, Summary)]
    total: Floats = rng.normal(0.0, math.hypot(*known), DRAWS)
    for run in runs:
        if not isinstance(run, Summary):
            total += _log_draws(run, statistic, rng)
    return total / len(runs)


def _log_draws(
    run: Sequence[float],
    statistic: str,
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> Floats:
    """Return draws of the log of one run's statistic, less what was seen."""
    samples = np.asarray(run, float)
    least = samples[samples > 0].min()
    found = resampled(samples, statistic, rng, draws)
    drawn: Floats = np.log(np.maximum(found, least))
    return drawn - math.log(statistic_of(run, statistic))


def relative_error(run: Sequence[float], statistic: str, *, seed: int = 0) -> float:
    """Return the standard error of the log of one run's statistic: a share."""
    rng = np.random.default_rng(seed)
    return float(_log_draws(run, statistic, rng, ERROR_DRAWS).std())


def resampled(
    samples: Floats, statistic: str, rng: np.random.Generator, draws: int = DRAWS
) -> Floats:
    """Return the statistic of bootstrap resamples, shape (draws,).

    The k-th smallest of n draws with replacement is the sample at rank
    floor(n x Beta(k, n - k + 1)): order statistics of uniforms. No resample is made.
    """
    count = len(samples)
    if statistic != "mean":
        rank = max(math.ceil(round(_percent(statistic) * count / 100, 9)), 1)
        places = rng.beta(rank, count - rank + 1, draws) * count
        ordered: Floats = np.sort(samples)
        drawn: Floats = ordered[np.minimum(places.astype(int), count - 1)]
        return drawn
    if count * DRAWS <= RESAMPLE_LIMIT:
        found: Floats = samples[rng.integers(count, size=(draws, count))].mean(1)
        return found
    error = samples.std() / math.sqrt(count)
    normal: Floats = rng.normal(samples.mean(), error, draws)
    normal[normal < samples.min()] = samples.min()
    return normal


def summarised(run: Run, statistic: str) -> Summary:
    """Return a run without its samples."""
    if isinstance(run, Summary):
        return run
    return Summary(statistic_of(run, statistic), relative_error(run, statistic))
