"""From a load run to measurements: ttft, itl, tpot, e2e and throughput.

Definitions with formula and source are in docs/reference/metrics.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pytest_pd.errors import MeasurementError
from pytest_pd.load.record import Outcome
from pytest_pd.load.result import ENDS_ONLY, LoadResult, RequestTrace
from pytest_pd.measure.measurement import Json, Measurement
from pytest_pd.measure.percentile import summary, thinned, with_failures
from pytest_pd.measure.provenance import describe
from pytest_pd.measure.throughput import throughput

NS = 1e9
SAMPLES_KEPT = 20_000
Floats = NDArray[np.float64]


def ttft_s(trace: RequestTrace) -> float:
    """Return seconds from the send to the first event that brought output.

    Connect time is no part of it; an empty role event is no output.
    """
    return float(trace.stamp_ns[0] - trace.sent_before_ns) / NS


def e2e_s(trace: RequestTrace) -> float:
    """Return seconds from the send to the last event that brought output."""
    return float(trace.stamp_ns[-1] - trace.sent_before_ns) / NS


def itl_s(trace: RequestTrace) -> Floats:
    """Return every gap between consecutive output events, seconds, shape (n - 1,)."""
    return np.diff(trace.stamp_ns) / NS


def tpot_s(trace: RequestTrace) -> float:
    """Return ``(t_last - t_first) / (tokens - tokens in the first event)``.

    Raises:
        MeasurementError: nothing came after the first event.
    """
    if not has_tpot(trace):
        raise MeasurementError("One output event has no time per output token.")
    after = trace.output_tokens - first_tokens(trace)
    return float(trace.stamp_ns[-1] - trace.stamp_ns[0]) / NS / after


def first_tokens(trace: RequestTrace) -> float:
    """Return the tokens of the first event; the request's mean where none says any."""
    said = int(trace.tokens.sum()) == trace.output_tokens
    return int(trace.tokens[0]) if said else trace.output_tokens / len(trace.stamp_ns)


@dataclass(frozen=True, slots=True)
class Latencies:
    """Samples of the successful requests of one run, in seconds.

    Attributes:
        ttft, e2e: Per request, from the actual send.
        ttft_intended, e2e_intended: Per request, from the intended send.
        tpot: Per request of two output events or more.
        itl: Every gap of every request, one after the other.
        queue: Actual minus intended send, per request.
        connect: Per request that had to connect.
    """

    ttft: Floats
    e2e: Floats
    ttft_intended: Floats
    e2e_intended: Floats
    tpot: Floats
    itl: Floats
    queue: Floats
    connect: Floats


def latencies(result: LoadResult) -> Latencies:
    """Return the latencies of the successful requests in the order they ended.

    Raises:
        MeasurementError: no request succeeded.
    """
    found = [trace for trace in result.traces() if trace.is_ok and len(trace.stamp_ns)]
    if not found:
        raise MeasurementError(
            f"No request of the run succeeded: {result.counts()}.",
            hint="look at the failures of the run",
        )
    found.sort(key=lambda trace: trace.end_ns)
    queue = np.array([t.sent_before_ns - t.intended_ns for t in found]) / NS
    ttft, e2e = _each(ttft_s, found), _each(e2e_s, found)
    paced = [t for t in found if has_tpot(t)]
    return Latencies(
        ttft=ttft,
        e2e=e2e,
        ttft_intended=ttft + queue,
        e2e_intended=e2e + queue,
        tpot=_each(tpot_s, paced),
        itl=np.concatenate([itl_s(trace) for trace in found]),
        queue=queue,
        connect=np.array([t.connect_ns / NS for t in found if t.connect_ns]),
    )


def _each(
    function: Callable[[RequestTrace], float], traces: Iterable[RequestTrace]
) -> Floats:
    return np.array([function(trace) for trace in traces], float)


def has_tpot(trace: RequestTrace) -> bool:
    """Tell whether output came after the first event."""
    return len(trace.stamp_ns) > 1 and trace.output_tokens > first_tokens(trace)


def measurements(
    result: LoadResult, *, gpus: Mapping[str, int] | None = None
) -> list[Measurement]:
    """Return every metric of a run, each with percentiles and provenance.

    Args:
        result: A run of at least one successful request. Whether it is valid is
            said in ``extra["reasons"]``, and is for the caller to act upon.
        gpus: Denominators of throughput by name, for example ``{"all": 12,
            "prefill": 8, "decode": 4}``.

    Raises:
        MeasurementError: no request succeeded.
    """
    found = latencies(result)
    common = describe(result)
    named = {"ttft": found.ttft, "e2e": found.e2e}
    if result.point.is_open:
        named["ttft_intended"] = found.ttft_intended
        named["e2e_intended"] = found.e2e_intended
        named["queue"] = found.queue
    if result.instrument.stamp_source != ENDS_ONLY:
        named["itl"] = found.itl
    named |= {"tpot": found.tpot, "connect": found.connect}
    failed = sum(n for kind, n in result.counts().items() if kind != "ok")
    made = [
        _measurement(name, values, failed, common)
        for name, values in named.items()
        if len(values)
    ]
    return [*made, *throughput(result, common, gpus or {})]


def _measurement(
    name: str, values: Floats, failed: int, common: Mapping[str, Json]
) -> Measurement:
    extra: dict[str, Json] = {**common, "percentiles_s": summary(values)}
    if name in ("ttft", "e2e", "ttft_intended", "e2e_intended"):
        extra["percentiles_failed_are_infinite_s"] = with_failures(values, failed)
    if name == "tpot":
        extra["tokens_per_s_per_user"] = 1 / max(float(np.median(values)), 1e-12)
    kept = thinned(values, SAMPLES_KEPT)
    if len(kept) < len(values):
        extra["samples_kept"] = f"{len(kept)} evenly spaced order statistics"
    unit = "s/token" if name == "tpot" else "s"
    return Measurement(name, tuple(map(float, kept)), unit=unit, extra=extra)


def success_share(result: LoadResult) -> float:
    """Return successful over all measured requests, failures in the denominator."""
    rows = result.rows()
    if not len(rows):
        raise MeasurementError("No request was measured.")
    return float((rows["outcome"] == Outcome.OK).mean())
