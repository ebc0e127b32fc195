"""Which GPUs of the host that sends the load can spoil its figures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_pd.fixtures.load import serving_gpus
from pytest_pd.plan.model import DeploymentPlan
from pytest_pd.provision.compose import plan_deployment
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.file import read_topology
from pytest_pd.spec.locate import find

HOST = ClusterSpec(name="host", hardware="h100", nodes=1, gpus_per_node=8)


def plan_named(name: str) -> DeploymentPlan:
    (file,) = find("topologies", [name])
    return plan_deployment(read_topology(file.path, file.name), HOST)


@pytest.mark.parametrize(
    ("name", "backend", "found"),
    [
        ("qwen3_4b_1p1d_shared", "local", [0, 1]),
        ("qwen3_4b_1p1d_shared", "slurm", None),  # nodes number them by themselves
        ("local_1p1d", "local", []),
    ],
)
def test_gpus_of_the_topology_are_judged(name, backend, found):
    assert serving_gpus(plan_named(name), backend) == found


def test_a_server_of_which_nothing_is_known_may_use_any_gpu():
    plan = replace(plan_named("local_1p1d"), services=())

    assert serving_gpus(plan, None) is None


def test_engines_that_play_gpus_use_none():
    plan = replace(plan_named("qwen3_4b_1p1d_shared"), rehearsal=True)

    assert serving_gpus(plan, "local") == []
