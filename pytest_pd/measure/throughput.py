"""Throughput, stored as seconds per token and per request so that bigger is worse."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pytest_pd.load.record import Array, Outcome
from pytest_pd.load.result import LoadResult
from pytest_pd.measure.measurement import Json, Measurement
from pytest_pd.measure.window import Window, steady_window, tokens_in

SLICES = 10


def throughput(
    result: LoadResult, common: Mapping[str, Json], gpus: Mapping[str, int]
) -> list[Measurement]:
    """Return time per output token and per request over the steady window.

    One sample per equal slice of the window, as many as hold at least one end of a
    request each, so that their harmonic mean is the rate of the whole window.
    """
    window = steady_window(result)
    rows = result.rows()
    ok = rows[rows["outcome"] == Outcome.OK]
    ends = ok["end_ns"]
    inside = int(((ends >= window.start_ns) & (ends <= window.end_ns)).sum())
    edges = _edges(window, max(min(SLICES, inside), 1))
    tokens = tokens_in(result, ok, edges)
    done = np.histogram(ends, bins=edges)[0]
    extra: dict[str, Json] = {
        **common,
        "window_s": window.seconds,
        "window_is_steady": window.is_steady,
    }
    return [
        *_rate("output_token_time", "s/token", tokens, edges, extra, gpus),
        *_rate("request_time", "s/request", done, edges, extra, gpus),
    ]


def _edges(window: Window, slices: int) -> Array:
    # the last edge is past the last stamp, which belongs to the window
    return np.linspace(window.start_ns, window.end_ns + 1, slices + 1)


def _rate(
    name: str,
    unit: str,
    amounts: Array,
    edges: Array,
    extra: Mapping[str, Json],
    gpus: Mapping[str, int],
) -> list[Measurement]:
    total = float(amounts.sum())
    seconds = float(edges[-1] - edges[0]) / 1e9
    if total <= 0 or seconds <= 0:
        return []
    word = "tokens" if unit == "s/token" else "requests"
    figures: dict[str, Json] = {f"{word}_per_s": total / seconds}
    for denominator, count in gpus.items():
        if count > 0:
            figures[f"{word}_per_s_per_gpu_{denominator}"] = total / seconds / count
    if (amounts <= 0).any():
        samples = [seconds / total]
    else:
        samples = [float(s) for s in np.diff(edges) / 1e9 / amounts]
    return [Measurement(name, tuple(samples), unit=unit, extra={**extra, **figures})]
