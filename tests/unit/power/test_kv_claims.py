"""What a topology lets the suites ask about its KV, whatever its model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pd.plan.model import KvShape
from pytest_pd.plugin.facts import facts_of
from pytest_pd.provision.compose import plan_deployment
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.file import read_topology
from pytest_pd.spec.locate import Roots, find
from pytest_pd.spec.topology import TopologySpec

H100 = ClusterSpec(name="site", hardware="h100", nodes=2, gpus_per_node=8)
NIXL = {
    "name": "made",
    "hardware": "h100",
    "model": {"path": "somebody/a-model", "served_name": "m"},
    "engine": {"kind": "vllm", "block_tokens": 16},
    "kv_transfer": {"connector": "nixl"},
    "prefill": {"replicas": 1},
    "decode": {"replicas": 1},
    "router": {"kind": "vllm_router"},
}
EIGHT_HEADS = KvShape(layers=32, kv_heads=8, head_dim=128, itemsize=2)


def facts(kv: KvShape | None = None, **keys: object) -> dict[str, bool]:
    spec = TopologySpec.model_validate({**NIXL, **keys})
    return known(spec, kv)


def known(spec: TopologySpec, kv: KvShape | None = None) -> dict[str, bool]:
    plan = plan_deployment(spec, H100)
    expected = replace(plan.expected, kv=kv)
    return facts_of(spec, replace(plan, expected=expected))


@pytest.mark.parametrize("name", ["llama31_8b_8p8d", "dynamo_8b_2gpu"])
def test_tokens_of_a_real_model_are_checked(name):
    (file,) = find("topologies", [name], Roots(Path()))

    found = known(read_topology(file.path, file.name))

    assert not found["known_answers"]
    assert found["counts_tokens"]
    assert found["handed_tokens"]


def test_bytes_need_the_shape_of_the_model():
    assert facts(EIGHT_HEADS)["handed_bytes"]
    assert not facts(None)["handed_bytes"]


def test_the_size_of_blocks_must_be_said_where_the_engine_chooses_it():
    """vLLM takes 64 or 128 tokens by itself for some kinds of attention."""
    unsaid = {"engine": {"kind": "vllm"}}
    files = {"connector": "shared_storage", "path": "/kv"}

    assert not facts(EIGHT_HEADS, **unsaid)["handed_bytes"]
    assert facts(**unsaid)["handed_tokens"]  # a pull takes every token
    assert not facts(**unsaid, kv_transfer=files)["handed_tokens"]
    assert facts(kv_transfer=files)["handed_tokens"]


@pytest.mark.parametrize(
    ("decode", "holds"),
    [({"tp": 8}, True), ({"tp": 4, "pp": 2}, False)],
)
def test_bytes_need_ranks_whose_shares_add_up(decode, holds):
    assert facts(EIGHT_HEADS, decode=decode)["handed_bytes"] is holds


def test_bytes_of_heads_that_ranks_share_cannot_be_told():
    latent = KvShape(layers=61, kv_heads=1, head_dim=288, itemsize=2)

    assert not facts(latent, decode={"tp": 8})["handed_bytes"]
    assert facts(latent, decode={"tp": 1})["handed_bytes"]


@pytest.mark.parametrize("kind", ["vllm", "dynamo"])
def test_another_connector_promises_no_count(kind):
    found = facts(
        EIGHT_HEADS,
        engine={"kind": kind},
        router={"kind": "dynamo" if kind == "dynamo" else "vllm_router"},
        kv_transfer={"connector": "LMCacheConnectorV1"},
    )

    assert not found["handed_tokens"]
    assert not found["handed_bytes"]


@pytest.mark.parametrize(
    ("keys", "holds"),
    [
        ({}, True),
        ({"prefill": {"prefix_caching": True}}, True),
        ({"prefill": {"prefix_caching": False}}, False),
        ({"prefill": {"args": ["--no-enable-prefix-caching"]}}, False),
        ({"prefill": {"workers": [{"args": ["--no_enable_prefix_caching"]}]}}, False),
        ({"engine": {"kind": "vllm", "args": ["--no-enable-prefix-caching"]}}, False),
        ({"decode": {"prefix_caching": False}}, True),
    ],
)
def test_repeats_are_looked_for_where_prompts_are_cached(keys, holds):
    assert facts(**keys)["prefix_caching"] is holds


@pytest.mark.parametrize(
    ("policy", "holds"),
    [("consistent_hash", True), ("cache_aware", False), ("round_robin", False)],
)
def test_a_session_is_kept_only_by_what_goes_by_it(policy, holds):
    found = facts(router={"kind": "vllm_router", "policy": policy})

    assert found["session_affinity"] is holds


@pytest.mark.parametrize(("engine", "answers"), [("vllm", True), ("dynamo", False)])
def test_workers_of_dynamo_are_not_asked_themselves(engine, answers):
    router = {"kind": "dynamo" if engine == "dynamo" else "vllm_router"}

    found = facts(engine={"kind": engine}, router=router)

    assert found["workers_answer"] is answers


def test_every_rank_has_a_prefix_cache_of_its_own():
    """A repeat may go to the rank that has not seen the prompt."""
    ranks = {"replicas": 1, "dp": 2}

    assert facts()["one_worker_per_role"]
    assert not facts(prefill=ranks, decode=ranks)["one_worker_per_role"]


@pytest.mark.parametrize(("replicas", "one"), [(1, True), (2, False)])
def test_a_repeat_may_go_to_another_aggregated_worker(replicas, one):
    keys = {**NIXL, "aggregated": {"replicas": replicas}}
    for gone in ("prefill", "decode", "kv_transfer"):
        del keys[gone]

    assert known(TopologySpec.model_validate(keys))["one_worker_per_role"] is one
