"""A plan survives its file, and a file that is none says so."""

from __future__ import annotations

import json

import pytest

from pytest_pd.errors import ProvisionError
from pytest_pd.plan.model import SiteFacts
from pytest_pd.provision.compose import plan_deployment
from pytest_pd.provision.plan_file import read_plan, write_plan
from pytest_pd.provision.rundir import RunDir
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.file import read_topology
from pytest_pd.spec.locate import find
from tests.kit import toy_topology


@pytest.fixture
def run(tmp_path):
    made = RunDir(tmp_path)
    made.create()
    return made


def test_a_toy_plan_survives(run):
    plan = toy_topology({"router": ["it's", "a b\n"]})(SiteFacts())
    write_plan(run, plan)

    assert read_plan(run) == plan


def test_a_real_plan_survives(run):
    (found,) = find("topologies", ["local_1p1d"])
    topology = read_topology(found.path, found.name)
    plan = plan_deployment(topology, ClusterSpec(name="local"))
    write_plan(run, plan)

    assert read_plan(run) == plan


@pytest.mark.parametrize("text", ["", "{}", "[]", json.dumps({"colour": "blue"})])
def test_what_is_no_plan_is_one_clear_error(run, text):
    run.plan.write_text(text)

    with pytest.raises(ProvisionError, match="cannot be read") as caught:
        read_plan(run)

    assert "version" in caught.value.hint
