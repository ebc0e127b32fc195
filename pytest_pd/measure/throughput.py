"""Throughput, stored as seconds per token and per request so that bigger is worse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pytest_pd.load.clock import NS
from pytest_pd.load.record import Array, Outcome
from pytest_pd.load.result import LoadResult
from pytest_pd.measure.measurement import Json, Measurement
from pytest_pd.measure.window import Window, steady_window, token_events

SLICES = 10


def throughput(
    result: LoadResult, common: Mapping[str, Json], gpus: Mapping[str, int]
) -> list[Measurement]:
    """Return time per output token and per request over the steady window.

    One sample per slice of equal work, so that their mean is the time of the whole
    window by its work; as many slices as requests ended in it, at most `SLICES`.
    """
    window = steady_window(result)
    rows = result.rows()
    ok = rows[rows["outcome"] == Outcome.OK]
    ends = ok["end_ns"]
    done = Work.inside(window, ends, np.ones(len(ends)))
    tokens = Work.inside(window, *token_events(result, ok))
    slices = max(min(SLICES, len(done.stamp_ns)), 1)
    extra: dict[str, Json] = {
        **common,
        "window_s": window.seconds,
        "window_is_steady": window.is_steady,
    }
    return [
        *_rate("output_token_time", "token", tokens, slices, extra, gpus),
        *_rate("request_time", "request", done, slices, extra, gpus),
    ]


@dataclass(frozen=True, slots=True)
class Work:
    """What was done in a window, and when.

    Attributes:
        stamp_ns: Ascending, shape (n,).
        amount: At each stamp, above 0, shape (n,).
    """

    window: Window
    stamp_ns: Array
    amount: Array

    @classmethod
    def inside(cls, window: Window, stamp_ns: Array, amount: Array) -> Work:
        """Return the part of the work that falls into `window`, both ends included."""
        start, end = window.start_ns, window.end_ns
        kept = (stamp_ns >= start) & (stamp_ns <= end) & (amount > 0)
        order = np.argsort(stamp_ns[kept], kind="stable")
        return cls(window, stamp_ns[kept][order], amount[kept][order])

    def slices_s(self, count: int) -> Array:
        """Return how long each of `count` equal parts of the work took, shape (count,).

        Between two stamps work is taken to grow evenly; the time after the last one
        belongs to the last slice.
        """
        done = np.concatenate([[0.0], np.cumsum(self.amount)])
        # seconds since the start: ns of a monotonic clock do not fit a float
        at_s = np.concatenate([[0], self.stamp_ns - self.window.start_ns]) / NS
        edges = np.interp(np.linspace(0.0, done[-1], count + 1), done, at_s)
        edges[-1] = self.window.seconds
        return np.diff(edges)


def _rate(
    name: str,
    word: str,
    work: Work,
    slices: int,
    extra: Mapping[str, Json],
    gpus: Mapping[str, int],
) -> list[Measurement]:
    total, seconds = float(work.amount.sum()), work.window.seconds
    if total <= 0 or seconds <= 0:
        return []
    figures: dict[str, Json] = {f"{word}s_per_s": total / seconds}
    for denominator, count in gpus.items():
        if count > 0:
            figures[f"{word}s_per_s_per_gpu_{denominator}"] = total / seconds / count
    samples = work.slices_s(slices) * slices / total
    if (samples <= 0).any():  # much of the work came at one moment
        samples = np.array([seconds / total])
    kept = tuple(map(float, samples))
    return [Measurement(name, kept, unit=f"s/{word}", extra={**extra, **figures})]
