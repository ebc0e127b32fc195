"""A job that goes away in the middle takes nothing with it that was measured."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from pytest_pd.installer.paths import bin_dir
from tests.e2e.slurm_kit import RACK, ROOT, running_slurm

SUITE = """
import subprocess
import time

from pytest_pd.errors import PdError
from pytest_pd.measure.measurement import Measurement


def test_a_measures(deployment, record):
    record([Measurement("kept_metric", (0.25, 0.5), unit="s")])


def test_b_loses_its_job(deployment):
    subprocess.run(["scancel", deployment.allocation.job], check=True)
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        try:
            deployment.check_alive()
        except PdError:
            raise ConnectionError("the router does not answer") from None
        time.sleep(0.1)


def test_c_would_go_on(deployment):
    pass
"""

SHORT = """
import pytest


def test_a_is_short(deployment):
    pass


@pytest.mark.pd_takes_s(90)
def test_b_needs_longer_than_its_job(deployment):
    raise AssertionError("it was begun")
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with running_slurm(tmp_path_factory.mktemp("slurm"), 4) as made:
        yield made


def run_suite(tmp_path, suite, **slurm):
    (tmp_path / "test_mine.py").write_text(suite)
    cluster = {**RACK, "nodes": 4, "slurm": {"partition": "batch", **slurm}}
    (tmp_path / "rack.yaml").write_text(yaml.safe_dump(cluster))
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "test_mine.py", "-rA", "-q"),
            *("--pd-topology", "local_1p1d", "--pd-rehearse", "-p", "no:randomly"),
            *("--pd-cluster", str(tmp_path / "rack.yaml"), "--pd-run-dir", "run"),
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{bin_dir()}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


def test_what_was_measured_before_a_loss_is_kept(site, tmp_path):
    done = run_suite(tmp_path, SUITE)

    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-2000:]
    lines = (tmp_path / "run" / "results.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [each["verdict"] for each in found] == ["passed", "blocked", "blocked"]
    assert "was cancelled" in found[1]["reason"]
    kept = [p for p in (tmp_path / "run").rglob("*.json*") if p.is_file()]
    assert any("kept_metric" in path.read_text() for path in kept)
    assert site.jobs() == []


def test_what_cannot_end_before_its_job_is_not_run(site, tmp_path):
    done = run_suite(tmp_path, SHORT, partition="short", time_limit_min=1)

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "not run: time limit (" in done.stdout
    assert "1 passed, 1 skipped" in done.stdout
    assert site.jobs() == []
