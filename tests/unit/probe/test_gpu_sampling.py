"""GPU use is sampled while a block runs, with a library that need not be here."""

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_pd.errors import EngineMissing
from pytest_pd.probe.gpu import GpuUse, sampled
from pytest_pd.provision.rundir import RunDir
from tests.kit import wait_until

SUITES = Path(__file__).parents[3] / "suites"


class FakeNvml:
    """Two GPUs: 0 works, 1 idles."""

    def __init__(self, *, driver: bool = True) -> None:
        self.driver = driver
        self.open = 0

    def nvmlInit(self):
        if not self.driver:
            raise RuntimeError("Driver not Loaded")
        self.open += 1

    def nvmlShutdown(self):
        self.open -= 1

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetUtilizationRates(self, handle):
        return SimpleNamespace(gpu=70 if handle == 0 else 0)


def test_each_gpu_is_sampled_until_the_block_ends():
    nvml = FakeNvml()

    with sampled([0, 1], nvml=nvml, period_s=0.001) as use:
        wait_until(lambda: len(use.samples[1]) >= 3, "three samples")

    assert (use.peak(0), use.peak(1)) == (70, 0)
    assert nvml.open == 0
    count = len(use.samples[0])
    assert count == len(use.samples[0])


def test_even_a_short_block_has_a_sample():
    with sampled([0], nvml=FakeNvml(), period_s=60.0) as use:
        pass

    assert use.peak(0) == 70


def test_library_is_closed_when_the_block_fails():
    nvml = FakeNvml()

    with pytest.raises(ZeroDivisionError), sampled([0], nvml=nvml):
        1 / 0  # noqa: B018

    assert nvml.open == 0


def test_missing_driver_is_told():
    nvml = FakeNvml(driver=False)

    with (
        pytest.raises(EngineMissing, match="Driver not Loaded"),
        sampled([0], nvml=nvml),
    ):
        pass


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)

    with pytest.raises(EngineMissing) as caught, sampled([0]):
        pass

    assert "pytest-pd[gpu]" in caught.value.hint


def test_unseen_gpu_was_idle():
    assert GpuUse().peak(3) == 0


def test_the_suite_judges_no_gpus_of_other_nodes(tmp_path):
    suite = runpy.run_path(str(SUITES / "correctness" / "test_gpu_use.py"))
    RunDir(tmp_path).write_manifest(backend="slurm")

    with pytest.raises(pytest.skip.Exception, match="slurm nodes"):
        suite["test_gpus_of_both_phases_work"](
            None, None, SimpleNamespace(run_dir=tmp_path)
        )
