"""KV takes the fabric: counters of the nodes show no fall-back to TCP."""

from __future__ import annotations

import pytest

from pytest_pd.plugin.facts import NO_API
from pytest_pd.provision.base import Wired
from pytest_pd.provision.wire import Wire, fell_back

PROMPTS = 8
TOKENS = 400


@pytest.mark.correctness
@pytest.mark.pd_needs("disaggregated", "kv_shape", "pull")
def test_kv_did_not_fall_back_to_tcp(deployment, ask, prompts, request):
    place = deployment.allocation
    if not isinstance(place, Wired):
        pytest.skip("nobody counts bytes of nodes here")

    def ask_all(ask, name):
        questions = [prompts.make(f"{name}{i}", tokens=TOKENS) for i in range(PROMPTS)]
        before = place.wire()
        answers = [ask(question.text, max_tokens=2) for question in questions]
        return answers, place.wire().since(before)

    answers, moved = ask_all(ask, "split")
    if moved.rdma is None and moved.nvlink is None:
        pytest.skip("the nodes have no counters of a fabric: there is only TCP")
    alone = Wire(0)
    if deployment.plan.engine not in NO_API:
        _, alone = ask_all(request.getfixturevalue("ask_aggregated"), "alone")

    tokens = sum(answer.usage["prompt_tokens"] for answer in answers)
    kv_bytes = tokens * deployment.plan.expected.kv.bytes_per_token
    assert fell_back(moved, alone, kv_bytes) == ""
