"""Clocks, power and throttling of this host's GPUs while a point is measured."""

from __future__ import annotations

import platform
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

SAMPLE_EVERY_S = 1.0
DRIFT_SHARE = 0.1
"""Between the medians of the first and the second half of the samples."""
SLOWDOWNS = {
    0x0000000000000008: "hardware slowdown",
    0x0000000000000020: "software thermal slowdown",
    0x0000000000000040: "hardware thermal slowdown",
    0x0000000000000080: "power brake",
}
"""Bits of nvmlDeviceGetCurrentClocksThrottleReasons that mean: not as it should be.
Being idle, application clocks and the power cap are as configured."""


@dataclass(frozen=True, slots=True)
class GpuReport:
    """What the GPUs of one host did: `GpuTrace.as_json`, and why a run is invalid."""

    host: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)
    reasons: Sequence[str] = ()


def together(reports: Sequence[GpuReport]) -> GpuReport:
    """Return one report of all hosts; where they are several, their names are told."""
    seen = [report for report in reports if report.figures]
    if len(seen) < 2:
        return seen[0] if seen else GpuReport()
    return GpuReport(
        host=", ".join(report.host for report in seen),
        figures={
            f"{report.host}/{gpu}": figures
            for report in seen
            for gpu, figures in report.figures.items()
        },
        reasons=[f"{each.host}: {reason}" for each in seen for reason in each.reasons],
    )


@dataclass(slots=True)
class GpuTrace:
    """Samples of all GPUs; empty where there is no NVML or no GPU.

    Attributes:
        clocks_mhz: GPU to its SM clock at each sample.
        power_w: GPU to its power at each sample.
        slowdowns: GPU to the names of slowdowns that were seen.
        judged: GPUs that can spoil the run; None for all of them.
    """

    clocks_mhz: dict[int, list[float]] = field(default_factory=dict)
    power_w: dict[int, list[float]] = field(default_factory=dict)
    slowdowns: dict[int, set[str]] = field(default_factory=dict)
    judged: Collection[int] | None = None

    def report(self) -> GpuReport:
        """Return what was seen on this host."""
        return GpuReport(platform.node(), self.as_json(), list(self.reasons()))

    def reasons(self) -> Iterator[str]:
        """Yield why the run is invalid: a GPU slowed down, or its clock drifted."""
        for gpu, names in sorted(self.slowdowns.items()):
            if names and self._judges(gpu):
                yield f"GPU {gpu} was slowed down: {', '.join(sorted(names))}"
        for gpu, clocks in sorted(self.clocks_mhz.items()):
            half = len(clocks) // 2
            if half < 2 or not self._judges(gpu):
                continue
            first, second = _median(clocks[:half]), _median(clocks[half:])
            if abs(second - first) > DRIFT_SHARE * first:
                yield f"the clock of GPU {gpu} went from {first:g} to {second:g} MHz"

    def _judges(self, gpu: int) -> bool:
        return self.judged is None or gpu in self.judged

    def as_json(self) -> dict[str, Any]:
        """Return extremes of the clocks and mean power by GPU."""
        return {
            str(gpu): {
                "sm_clock_mhz_min": min(clocks),
                "sm_clock_mhz_max": max(clocks),
                "power_w_mean": sum(self.power_w[gpu]) / len(self.power_w[gpu]),
                "slowdowns": sorted(self.slowdowns.get(gpu, ())),
            }
            for gpu, clocks in sorted(self.clocks_mhz.items())
            if clocks
        }


def _median(values: list[float]) -> float:
    return sorted(values)[(len(values) - 1) // 2]


def find_nvml() -> Any | None:
    """Return the initialised NVML module; None where there is none that works."""
    if find_spec("pynvml") is None:
        return None
    nvml = import_module("pynvml")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    return nvml


@contextmanager
def watched_gpus(
    nvml: Any | None = None,
    *,
    every_s: float = SAMPLE_EVERY_S,
    judged: Collection[int] | None = None,
) -> Iterator[GpuTrace]:
    """Yield a trace that a thread fills while the block runs.

    Args:
        nvml: The module, given by tests; None looks for it.
        judged: As in `GpuTrace`.
    """
    trace, found = GpuTrace(judged=judged), nvml or find_nvml()
    if found is None:
        yield trace
        return
    done = threading.Event()
    thread = threading.Thread(target=_sample, args=(found, trace, done, every_s))
    thread.start()
    try:
        yield trace
    finally:
        done.set()
        thread.join()


def _sample(nvml: Any, trace: GpuTrace, done: threading.Event, every_s: float) -> None:
    with suppress(nvml.NVMLError):  # a GPU that does not tell is not watched
        _sample_all(nvml, trace, done, every_s)


def _sample_all(
    nvml: Any, trace: GpuTrace, done: threading.Event, every_s: float
) -> None:
    handles = [
        nvml.nvmlDeviceGetHandleByIndex(k) for k in range(nvml.nvmlDeviceGetCount())
    ]
    while True:
        for gpu, handle in enumerate(handles):
            clock = nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)
            power_mw = nvml.nvmlDeviceGetPowerUsage(handle)
            bits = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
            trace.clocks_mhz.setdefault(gpu, []).append(float(clock))
            trace.power_w.setdefault(gpu, []).append(power_mw / 1e3)
            names = {name for bit, name in SLOWDOWNS.items() if bits & bit}
            trace.slowdowns.setdefault(gpu, set()).update(names)
        if done.wait(every_s):
            return
