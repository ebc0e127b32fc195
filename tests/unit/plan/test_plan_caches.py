"""Weights are kept once, compiled kernels once per image."""

from __future__ import annotations

import pytest

ENGINE = {"kind": "plain"}


@pytest.mark.parametrize(
    ("keys", "folder"),
    [
        ({"image": "vllm/vllm-openai:v0.32.0"}, "vllm-vllm-openai-v0.32.0"),
        ({"image": "own"}, "registry-x-vllm-sha256-ab"),
        ({"version": "0.32.0"}, "plain-0.32.0"),
        ({}, "plain-installed"),
    ],
)
def test_each_image_has_its_own_kernels(plan, keys, folder):
    cluster = {
        "cache_dir": "/scratch/me",
        "images": {"own": "registry/x/vllm@sha256:ab"},
    }
    env = plan(engine=ENGINE | keys, cluster=cluster).service("prefill-0").env

    assert env["VLLM_CACHE_ROOT"] == f"/scratch/me/{folder}/vllm"
    assert env["TRITON_CACHE_DIR"] == f"/scratch/me/{folder}/triton"
    assert env["HF_HOME"] == "/scratch/me/huggingface"


def test_without_the_key_engines_choose(plan):
    assert "HF_HOME" not in plan(engine=ENGINE).service("prefill-0").env


def test_a_router_has_no_such_caches(plan):
    made = plan(
        engine=ENGINE, router={"kind": "plain"}, cluster={"cache_dir": "/scratch/me"}
    )

    assert "HF_HOME" not in made.service("router").env


def test_what_a_topology_says_wins(plan):
    made = plan(
        engine=ENGINE | {"env": {"HF_HOME": "/models"}},
        cluster={"cache_dir": "/scratch/me"},
    )

    assert made.service("prefill-0").env["HF_HOME"] == "/models"
