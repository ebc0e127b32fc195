"""The router's own word: each answer and its log name both workers of a request."""

from __future__ import annotations

import pytest

from pytest_pd.plan.model import Role
from pytest_pd.probe.named import named_in, named_in_log, names_workers
from pytest_pd.probe.openai import COMPLETIONS
from pytest_pd.provision.compose import router_of

pytestmark = [
    pytest.mark.correctness,
    pytest.mark.pd_needs("disaggregated", "router"),
]

REQUESTS = 12


@pytest.fixture
def witness(topology):
    return router_of(topology).witness(topology)


@pytest.fixture
def answers(client, deployment, prompts, watch, witness):
    """Send 12 prompts; return what the services saw, and the responses."""
    model = deployment.plan.served_model

    def post(index):
        text = prompts.make(index, tokens=60).text
        body = {"model": model, "prompt": text, "max_tokens": 4, "temperature": 0}
        response = client.post(COMPLETIONS, json=body | dict(witness.ask))
        assert response.status_code == 200, response.text
        return response

    def _answers(*, logs=False):
        # answers and the router's log tell
        with watch(may_lose=True, logs=logs) as seen:
            responses = [post(index) for index in range(REQUESTS)]
        return seen.window, responses

    return _answers


def test_answers_name_a_prefill_and_a_decode_worker(answers, witness, deployment):
    if not names_workers(witness):
        pytest.skip("this router does not name the workers in its answers")

    _, responses = answers()
    named = [named_in(witness, r.headers, r.json()) for r in responses]

    assert None not in named, f"{named.count(None)} answers name no workers"
    prefill, decode = (set(names) for names in zip(*named, strict=True))
    assert not prefill & decode, f"served both phases: {prefill & decode}"
    for names, role in ((prefill, Role.PREFILL), (decode, Role.DECODE)):
        by_address = {name.partition("@")[0] for name in names if ":" in name}
        unknown = by_address - deployment.hosts_of(role)
        assert not unknown, f"unknown {role} workers: {unknown}"


def test_log_tells_of_both_phases_of_every_request(answers, witness):
    if not witness.log_pattern:
        pytest.skip("this router's log does not name workers")

    window, _ = answers(logs=True)
    if window.without_log(Role.ROUTER):
        pytest.skip("its log is not here")
    routers = [e.service for e in window.endpoints if e.role is Role.ROUTER]
    text = "".join(window.delta.new_log(name) for name in routers)
    named = named_in_log(witness, text)

    if "worker" in named:
        assert len(named["worker"]) == 2 * REQUESTS
    else:
        assert len(named.get("prefill", ())) == REQUESTS
        assert len(named.get("decode", ())) == REQUESTS
