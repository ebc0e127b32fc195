"""What stands beside a figure says what it was made with."""

from __future__ import annotations

import json
import subprocess

import pytest

from pytest_pd.provision.compose import plan_deployment
from pytest_pd.report.provenance import environment, git_commit, mode_of, provenance
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.file import read_topology
from pytest_pd.spec.locate import find


@pytest.fixture
def plan():
    (found,) = find("topologies", ["local_1p1d"])
    return plan_deployment(read_topology(found.path), ClusterSpec(name="local"))


def test_it_is_plain_json(plan):
    found = provenance(plan, run_id="r", label="base", commit="abc")

    assert json.loads(json.dumps(found)) == found
    assert found["topology"] == "local_1p1d"
    assert found["topology_hash"] == plan.identity
    assert found["mode"] == "real"
    assert found["label"] == "base"
    assert found["versions"]["pytest"]


def test_attached_is_no_real_run(plan):
    from dataclasses import replace

    assert mode_of(replace(plan, name="x@attached")) == "attached"
    assert mode_of(replace(plan, rehearsal=True)) == "rehearsal"


def git(folder, *words):
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", folder, *words],
        check=True,
        capture_output=True,
    )


def test_commit_and_dirt(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "x")
    clean = git_commit(tmp_path)
    (tmp_path / "a").write_text("2")

    assert len(clean) == 40
    assert git_commit(tmp_path) == f"{clean}+dirty"


def test_no_checkout_no_commit(tmp_path):
    assert git_commit(tmp_path) == ""


def test_environment_masks_secrets():
    text = json.dumps(environment({"HF_TOKEN": "hf_abcdefgh", "X": "1"}))

    assert "hf_abcdefgh" not in text
