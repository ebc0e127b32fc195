"""Two deployments are the same one by content, wherever they run."""

from collections.abc import Callable
from typing import Any

import pytest

from pytest_pd.plan.model import DeploymentPlan, SiteFacts

Plan = Callable[..., DeploymentPlan]


@pytest.mark.parametrize(
    "data",
    [
        {"name": "other"},
        {"description": "words"},
        {"level": "full"},
        {"model": {"path": "/elsewhere/m", "served_name": "m"}},
        {"prefill": {"port": 9000}, "decode": {"log": "x.log"}},
        {"router": {"kind": "plain", "ports": {"metrics": 1234}}},
        {"budgets": {"ready_s": 5}, "slo": {"ttft_ms": 1}, "workloads": ["w"]},
        {"kv_transfer": {"connector": "nixl", "path": "/elsewhere"}},
        {"engine": {"kind": "plain", "executable": "/opt/bin/serve"}},
        {"site": SiteFacts("/r", "r1", {"node0": "10.0.0.1"}, port_offset=7)},
        {"nodes": 9},
        {"cluster": {"name": "another"}},
    ],
)
def test_places_and_names_do_not_count(plan: Plan, data: dict[str, Any]) -> None:
    assert plan(**data).identity == plan().identity


@pytest.mark.parametrize(
    "data",
    [
        {"model": {"path": "/models/n", "served_name": "m"}},
        {"model": {"path": "/models/m", "served_name": "n"}},
        {"model": {"path": "/models/m", "served_name": "m", "precision": "fp8"}},
        {"prefill": {"replicas": 2}, "decode": {}},
        {"prefill": {"env": {"A": "1"}}, "decode": {}},
        {"engine": {"kind": "plain", "args": ["--x"]}},
        {"engine": {"kind": "plain", "version": "2"}},
        {"kv_transfer": {"connector": "other"}},
        {"router": {"kind": "plain", "policy": "random"}},
        {"gpus": 4},
        {"cluster": {"hardware": "b200"}},
        {"cluster": {"backend": "kubernetes"}},
    ],
)
def test_content_counts(plan: Plan, data: dict[str, Any]) -> None:
    assert plan(**data).identity != plan().identity


def test_it_is_the_same_in_every_process(plan: Plan) -> None:
    assert plan(nodes=1, gpus=0).identity == "4ef2a0d8d829f104"
