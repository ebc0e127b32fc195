"""Megatron's own refit benchmark as an engine: its printed times, and what they lack.

``examples/rl/benchmark_refit.py`` prints mean, least and greatest time of rank 0, a
source rank in non-collocated mode, and checks no bit: whatever is read here is
marked unverified.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pytest_pd.errors import MeasurementError
from pytest_pd.measure.measurement import Measurement
from pytest_pd.spec.refit import Layout, RefitScenario

_LAYOUT = r"{}:\s+TP=(\d{{1,9}}), PP=(\d{{1,9}}), EP=(\d{{1,9}}), DP=(\d{{1,9}})"
_TIME = r"^{}:\s+(\d+(?:\.\d+)?) ms\s*$"


@dataclass(frozen=True, slots=True)
class BenchmarkOutput:
    """What the benchmark said; times in seconds. A layout is (tp, pp, ep, dp)."""

    mode: str
    world_ranks: int
    source: tuple[int, int, int, int]
    target: tuple[int, int, int, int]
    backend: str
    mean_s: float
    min_s: float
    max_s: float


def parse_benchmark(text: str) -> BenchmarkOutput:
    """Read the output of ``benchmark_refit.py``; other lines may be in between.

    Raises:
        MeasurementError: a line is missing, or the times contradict each other.
    """
    mean, low, high = (
        float(_find(_TIME.format(word), text, word)[0]) / 1e3
        for word in ("Mean", "Min", "Max")
    )
    # Two decimals are printed, so the mean may be rounded past the others.
    if not low - 1e-5 <= mean <= high + 1e-5:
        raise MeasurementError(
            f"mean {mean * 1e3:.2f} ms is not between min {low * 1e3:.2f} and "
            f"max {high * 1e3:.2f} ms.",
            hint="the output is mixed up; run the benchmark alone",
        )
    mode = _find(r"REFIT BENCHMARK - (\S+) MODE", text, "mode")[0]
    return BenchmarkOutput(
        mode=mode.lower(),
        world_ranks=int(_find(r"World size: (\d{1,9})\b", text, "World size")[0]),
        source=_layout("Source", text),
        target=_layout("Destination", text),
        backend=_find(r"Backend: (\S+)", text, "Backend")[0],
        mean_s=mean,
        min_s=low,
        max_s=high,
    )


def _find(pattern: str, text: str, what: str) -> tuple[str, ...]:
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        raise MeasurementError(
            f"the benchmark's output has no {what!r}.",
            hint="give all that examples/rl/benchmark_refit.py printed on rank 0",
        )
    return tuple(found.groups())


def _layout(word: str, text: str) -> tuple[int, int, int, int]:
    tp, pp, ep, dp = map(int, _find(_LAYOUT.format(word), text, word))
    return tp, pp, ep, dp


def contradiction(output: BenchmarkOutput, scenario: RefitScenario) -> str:
    """Return how the output is not of this scenario, or nothing."""

    def pairs(side: str, got: tuple[int, int, int, int], want: Layout) -> list[str]:
        named = zip(("TP", "PP", "EP"), got, (want.tp, want.pp, want.ep), strict=False)
        return [f"{side} {n}={a}, wanted {b}" for n, a, b in named if a != b]

    told = pairs("source", output.source, scenario.source)
    told += pairs("target", output.target, scenario.target)
    if output.mode != scenario.mode:
        told.append(f"mode {output.mode}, wanted {scenario.mode}")
    if output.backend != scenario.method:
        told.append(f"method {output.backend}, wanted {scenario.method}")
    return "; ".join(told)


def external_measurement(output: BenchmarkOutput, bound_s: float) -> Measurement:
    """Return the three printed times as a measurement that says what it is not."""
    status = "invalid" if output.min_s < bound_s else "unverified"
    return Measurement(
        "refit_external",
        (output.min_s, output.mean_s, output.max_s),
        extra={
            "status": status,
            "samples_are": "min, mean, max of rank 0 as printed; not single refits",
            "backend": output.backend,
            "world_ranks": output.world_ranks,
            "bound_s": bound_s,
        },
    )
