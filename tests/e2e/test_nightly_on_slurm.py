"""The recipe for cron and Slurm, run as cron would, against a real Slurm."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pytest_pd.cli import main
from tests.e2e.slurm_kit import running_slurm
from tests.kit import wait_until

CLUSTER = {
    "name": "my_slurm",
    "backend": "slurm",
    "hardware": "cpu",
    "nodes": 2,
    "lease_ttl_s": 20,
    "slurm": {"partition": "batch", "time_limit_min": 20, "gpus_by": "none"},
}
LINE = "cd $HOME/pd && flock -n .nightly.lock ./nightly.sh"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with running_slurm(tmp_path_factory.mktemp("slurm"), 2) as made:
        yield made


@pytest.fixture
def project(tmp_path):
    """A project as ``pytest-pd init`` lays it out, with a cluster and our programs."""
    place = tmp_path / "pd"
    assert main(["init", str(place), "--ci", "cron"]) == 0
    path = place / "fixtures" / "clusters" / "my_slurm.yaml"
    path.write_text(yaml.safe_dump(CLUSTER))
    (place / "nightly.gate.yaml").write_text(
        'baseline: ["runs/2*"]\nmetrics: {ttft: {max_increase: 5.0}}\n'
    )
    activate = place / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f'PATH="{Path(sys.executable).parent}:$PATH"\n')
    return place


def night(project, site, tests):
    """Run the line of the crontab in the environment that cron gives."""
    env = {
        "HOME": str(project.parent),
        "PATH": "/usr/bin:/bin",
        "SHELL": "/bin/sh",
        "PD_NIGHT_CLUSTER": "my_slurm",
        "PD_NIGHT_TOPOLOGY": "local_1p1d",
        "PD_NIGHT_TESTS": tests,
        **site.env,
    }
    words = ["sh", "-c", LINE]
    return subprocess.run(words, env=env, timeout=400, check=False).returncode


def record(project):
    path = max(project.glob("nights/*/nightly.json"))
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_night_from_cron(site, project):
    code = night(project, site, "suites/performance/test_sweep.py")

    log = (project / "night.log").read_text(encoding="utf-8")
    found = record(project)
    assert code == found["exit_code"], log
    # a busy machine makes figures invalid; nothing else may go wrong here
    assert code in (0, 24, 26), log
    assert any("local_1p1d" in test["nodeid"] for test in found["tests"])
    assert (project / "night.xml").is_file()
    assert "unused run(s) removed" in log
    assert site.jobs() == []


def test_a_second_night_does_not_meet_the_first(site, project):
    (project / ".nightly.lock").touch()
    with subprocess.Popen(
        ["flock", str(project / ".nightly.lock"), "cat"], stdin=subprocess.PIPE
    ) as first:
        wait_until(lambda: _is_locked(project / ".nightly.lock"), "the first night")
        code = night(project, site, "suites/mine")
        first.communicate()

    assert code == 1
    assert not (project / "nights").exists()


def _is_locked(path):
    return subprocess.run(["flock", "-n", str(path), "true"], check=False).returncode
