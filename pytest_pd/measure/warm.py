"""Waves of requests before the first point of a shape, until two of them agree.

The first requests of a shape pay for what is made on demand: compiled kernels, graphs,
page tables, caches of the tokenizer. How many that takes is the engine's secret, so
waves are sent until their medians stop moving.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any

from pytest_pd.load.point import Arrivals, LoadPoint
from pytest_pd.load.result import LoadResult
from pytest_pd.load.workload import SweepPoint
from pytest_pd.measure.latency import latencies
from pytest_pd.spec.workload import WorkloadSpec

LEAST, MOST = 2, 6
TOLERANCE = 0.25
OPEN_LOOP_STREAMS = 4
SMALLEST_WAVE = 4


@dataclass(frozen=True, slots=True)
class WarmUp:
    """How a server became warm.

    Attributes:
        ttft_s, e2e_s: Medians of each wave.
        is_stable: The last two waves agree in both.
    """

    ttft_s: tuple[float, ...] = ()
    e2e_s: tuple[float, ...] = ()
    is_stable: bool = False

    def line(self) -> str:
        """Return how it went, for a person."""
        how = "stable" if self.is_stable else "NOT stable"
        medians = ", ".join(f"{s * 1e3:.4g}" for s in self.e2e_s)
        return f"warmed by {len(self.e2e_s)} waves, {how}: e2e p50 {medians} ms"

    def with_wave(self, ttft_s: float, e2e_s: float) -> WarmUp:
        """Return this with another wave, judged anew."""
        ttfts, e2es = (*self.ttft_s, ttft_s), (*self.e2e_s, e2e_s)
        return WarmUp(ttfts, e2es, agree(ttfts) and agree(e2es))

    def as_json(self) -> dict[str, Any]:
        return {
            "waves": len(self.ttft_s),
            "is_stable": self.is_stable,
            "ttft_p50_s": list(self.ttft_s),
            "e2e_p50_s": list(self.e2e_s),
        }


def agree(medians: tuple[float, ...]) -> bool:
    """Whether the last two of at least `LEAST` differ by less than `TOLERANCE`."""
    if len(medians) < LEAST:
        return False
    low, high = sorted(medians[-2:])
    return high <= low * (1 + TOLERANCE)


def wave_of(point: SweepPoint) -> SweepPoint:
    """Return what one wave before `point` offers: each of its streams once."""
    streams = point.load.concurrency or OPEN_LOOP_STREAMS
    load = LoadPoint(
        concurrency=streams,
        requests=max(streams, SMALLEST_WAVE),
        arrivals=Arrivals.CLOSED,
        timeout_s=point.load.timeout_s,
        min_waves=1,
    )
    return replace(point, label=f"{point.label}-warm", load=load)


def shape_of(url: str, spec: WorkloadSpec, point: SweepPoint) -> Hashable:
    """Return what makes a server warm for `point`: where, how long, how many."""
    if spec.kind == "trace":
        return None
    lengths = (spec.prompt_tokens, spec.output_tokens, spec.turns)
    return (url, spec.endpoint, *lengths, point.load.concurrency)


def warm_up(wave: Callable[[], LoadResult]) -> WarmUp:
    """Send waves until two agree, at most `MOST`; a wave without success ends it."""
    found = WarmUp()
    while len(found.ttft_s) < MOST and not found.is_stable:
        result = wave()
        if not result.counts().get("ok"):
            break
        seen = latencies(result)
        found = found.with_wave(
            statistics.median(seen.ttft.tolist()), statistics.median(seen.e2e.tolist())
        )
    return found


@dataclass(slots=True)
class Warmer:
    """Warms each shape of each endpoint once, and remembers how it went.

    A trace has no shape: its requests are all different, and its times are its own.
    """

    _known: dict[Hashable, WarmUp] = field(default_factory=dict)

    def warm(self, shape: Hashable, wave: Callable[[], LoadResult]) -> WarmUp:
        """Return how `shape` became warm, now or when it was first asked for."""
        if shape is None:
            return WarmUp()
        if shape not in self._known:
            self._known[shape] = warm_up(wave)
        return self._known[shape]


def with_warm_up(result: LoadResult, found: WarmUp) -> LoadResult:
    """Return `result` with how the server was warmed before it."""
    if not found.ttft_s:
        return result
    instrument = replace(result.instrument, warm_up=found.as_json())
    return replace(result, instrument=instrument)
