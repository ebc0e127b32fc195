"""GPUs that drift or slow down void a run; a host without any is no trouble."""

from __future__ import annotations

import os
import sys
import time
from itertools import count

import pytest

from pytest_pd.load.bench import Bench
from pytest_pd.load.gpu import GpuReport, GpuTrace, find_nvml, together, watched_gpus
from pytest_pd.load.point import LoadPoint
from pytest_pd.load.prompts import Prompt
from pytest_pd.load.target import Target


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


def test_gpu_that_does_not_tell_is_not_watched():
    nvml = FakeNvml(clocks=lambda n: 1 / 0)
    nvml.NVMLError = ZeroDivisionError

    with watched_gpus(nvml) as trace:
        pass

    assert "1" not in trace.as_json()


HOT = """
NVML_CLOCK_SM, NVMLError = 1, RuntimeError
nvmlInit = lambda: None
nvmlDeviceGetCount = lambda: 1
nvmlDeviceGetHandleByIndex = lambda k: k
nvmlDeviceGetClockInfo = lambda handle, kind: 1980
nvmlDeviceGetPowerUsage = lambda handle: 650_000
nvmlDeviceGetCurrentClocksThrottleReasons = lambda handle: 0x40
"""


def test_gpu_of_the_host_that_sends_the_load_voids_the_run(truth, tmp_path):
    (tmp_path / "pynvml.py").write_text(HOT)
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    bench = Bench([sys.executable], {**os.environ, "PYTHONPATH": paths})
    offered = LoadPoint(concurrency=2, requests=8)
    prompts = [Prompt(text=f"a {k} b", output_tokens=4) for k in range(8)]
    try:
        result = bench.run(Target(url=truth.url), offered, prompts, shards=2)
    finally:
        bench.close()

    assert result.reasons == ("GPU 0 was slowed down: hardware thermal slowdown",)
    assert list(result.instrument.gpus) == ["0"]


def test_gpus_of_several_hosts_have_their_names():
    trace = GpuTrace({0: [1980]}, {0: [650]}, {0: {"power brake"}})
    figures, reasons = trace.as_json(), list(trace.reasons())

    found = together([GpuReport(host, figures, reasons) for host in ("n1", "n2")])

    assert list(found.figures) == ["n1/0", "n2/0"]
    assert found.reasons[1] == "n2: GPU 0 was slowed down: power brake"


def test_what_befalls_gpus_of_others_is_no_reason():
    clocks = {0: [1980.0] * 6, 7: [345.0, 345.0, 345.0, 1980.0, 1980.0, 1980.0]}
    trace = GpuTrace(clocks, slowdowns={7: {"power brake"}}, judged=[0])

    assert list(trace.reasons()) == []
    assert list(GpuTrace(clocks, judged=[7]).reasons())
