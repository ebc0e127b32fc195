"""Whom an eval asks: the router, and a worker that answers whole requests."""

from __future__ import annotations

import pytest

from pytest_pd.errors import InfrastructureLost
from pytest_pd.evals.evaluate import served_length, sides_of
from pytest_pd.evals.judge import AGAIN, AGGREGATED, PD
from pytest_pd.plugin.facts import facts_of
from pytest_pd.probe import served
from pytest_pd.probe.http import Answer
from pytest_pd.provision.compose import plan_deployment
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.file import read_topology
from pytest_pd.spec.locate import find

HOSTS = ClusterSpec(name="site", hardware="h100", nodes=8, gpus_per_node=8)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("local_1p1d", [PD, AGGREGATED]),
        ("local_agg", [PD]),
        ("qwen3_4b_1p1d_shared", [PD, AGGREGATED, AGAIN]),
        ("dynamo_8b_2gpu", [PD]),  # its workers answer health and metrics only
    ],
)
def test_workers_with_an_api_are_the_other_side(name, asked):
    (file,) = find("topologies", [name])
    spec = read_topology(file.path, file.name)
    plan = plan_deployment(spec, HOSTS)
    answer = facts_of(spec, plan)["workers_answer"]

    assert [side.name for side in sides_of(plan, workers_answer=answer)] == asked


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        (b'{"data": [{"id": "m", "max_model_len": 131072}]}', 131072),
        (b'{"data": [{"id": "m"}]}', None),
        (b'{"data": []}', None),
        (b"[]", None),
        (b"<html>", None),
    ],
)
def test_a_server_says_how_long_prompts_may_be(monkeypatch, text, tokens):
    monkeypatch.setattr(served, "request", lambda url, **_: Answer(200, text))

    assert served_length("http://a") == tokens


def test_a_server_that_is_gone_says_nothing(monkeypatch):
    def gone(url, **_):
        raise InfrastructureLost(f"{url}: refused")

    monkeypatch.setattr(served, "request", gone)

    assert served_length("http://a") is None
