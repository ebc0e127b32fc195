"""GPUs that drift or slow down void a run; a host without any is no trouble."""

from __future__ import annotations

import time
from itertools import count

import pytest

from pytest_pd.load.gpu import GpuTrace, find_nvml, watched_gpus


class FakeNvml:
    """Two GPUs; the second does what a test says."""

    NVML_CLOCK_SM = 1
    NVMLError = RuntimeError

    def __init__(self, clocks=lambda n: 1980, bits=0):
        self._clocks, self._bits, self._calls = clocks, bits, count()

    def nvmlDeviceGetCount(self):
        return 2

    def nvmlDeviceGetHandleByIndex(self, k):
        return k

    def nvmlDeviceGetClockInfo(self, handle, kind):
        assert kind == self.NVML_CLOCK_SM
        return self._clocks(next(self._calls)) if handle else 1980

    def nvmlDeviceGetPowerUsage(self, handle):
        return 650_000

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle):
        return self._bits if handle else 0


def watch(nvml, samples=8):
    with watched_gpus(nvml, every_s=0.001) as trace:
        deadline = time.monotonic() + 10
        while len(trace.clocks_mhz.get(1, ())) < samples:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    return trace


def test_steady_gpus_are_recorded_and_no_reason():
    trace = watch(FakeNvml())

    assert list(trace.reasons()) == []
    assert trace.as_json()["1"]["power_w_mean"] == pytest.approx(650)
    assert trace.as_json()["0"]["sm_clock_mhz_max"] == 1980


def test_drifting_clock_is_a_reason():
    trace = GpuTrace(clocks_mhz={0: [1980, 1980, 1980, 1400, 1400, 1400]})

    assert list(trace.reasons()) == ["the clock of GPU 0 went from 1980 to 1400 MHz"]


def test_one_odd_sample_is_no_drift():
    trace = GpuTrace(clocks_mhz={0: [1980, 1980, 1200, 1980, 1980, 1980]})

    assert list(trace.reasons()) == []


def test_thermal_slowdown_is_a_reason():
    (reason,) = watch(FakeNvml(bits=0x40)).reasons()

    assert reason == "GPU 1 was slowed down: hardware thermal slowdown"


def test_idle_and_power_cap_are_as_configured():
    assert list(watch(FakeNvml(bits=0x01 | 0x04)).reasons()) == []


def test_host_without_nvml_gives_an_empty_trace(monkeypatch):
    monkeypatch.setattr("pytest_pd.load.gpu.find_spec", lambda name: None)

    assert find_nvml() is None
    with watched_gpus() as trace:
        pass
    assert trace.as_json() == {}
    assert list(trace.reasons()) == []
