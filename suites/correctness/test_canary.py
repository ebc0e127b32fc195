"""Decode answers from the KV that it is given: damage it, and the answer must go.

Counters can lie, and an engine that computes the prompt again still answers right.
A hand-over spoilt on purpose shows which of the two an answer came from. A whole one
comes first, sent the same way: a decode worker that answers nobody proves nothing.
"""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from pytest_pd.fixtures.ask import asker
from pytest_pd.plan.model import Role
from pytest_pd.proxy.ask import PULL_PARAMS

pytestmark = [
    pytest.mark.correctness,
    pytest.mark.pd_needs("disaggregated", "known_answers", "workers_answer"),
]

PROMPTS = 4
ANSWER_TOKENS = 16
LENGTH_BYTES = 8
"""A safetensors file begins with the length of its header."""


@pytest.fixture
def stages(deployment):
    """Ask each prefill and each decode worker directly, without the router."""
    plan = deployment.plan
    clients = {
        role: [
            httpx.Client(base_url=endpoint.url, timeout=60.0, trust_env=False)
            for endpoint in plan.of_role(role)
        ]
        for role in (Role.PREFILL, Role.DECODE)
    }
    yield {
        role: [asker(client, plan) for client in made] for role, made in clients.items()
    }
    for made in clients.values():
        for client in made:
            client.close()


@pytest.fixture
def make(prompts):
    """Return a prompt of 160 tokens: one length, so that any two can be swapped."""
    return lambda key: prompts.make(key, tokens=160, answer_tokens=ANSWER_TOKENS)


def spoil(file: Path) -> None:
    """Overwrite the numbers of a safetensors file with zeros, its header kept."""
    data = file.read_bytes()
    start = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")
    file.write_bytes(data[:start] + bytes(len(data) - start))


@pytest.mark.pd_needs("shared_storage")
def test_decode_uses_the_files_of_prefill(stages, make, deployment):
    """Zeros in the files of a prompt, and decode cannot answer it any more."""
    store = Path(deployment.plan.expected.kv_path)
    if not store.is_dir():
        pytest.skip(f"{store} is not on this host")

    for decode in stages[Role.DECODE]:
        question = make(f"{id(decode)}:whole")
        assert stages[Role.PREFILL][0](question.text, max_tokens=1).ok
        check_right(decode(question.text, max_tokens=ANSWER_TOKENS), question)
        right = 0
        for index in range(PROMPTS):
            question = make(f"{id(decode)}:{index}")
            before = set(store.rglob("*.safetensors"))
            assert stages[Role.PREFILL][0](question.text, max_tokens=1).ok
            written = set(store.rglob("*.safetensors")) - before
            assert written, f"prefill wrote no KV into {store}"
            for file in written:
                spoil(file)
            answer = decode(question.text, max_tokens=ANSWER_TOKENS)
            right += answer.text == question.expected
        assert not right, (
            f"decode answered {right} of {PROMPTS} prompts right although their KV was "
            "destroyed: it computes prompts itself"
        )


@pytest.mark.pd_needs("pull")
def test_decode_uses_the_kv_that_it_pulls(stages, make):
    """With the KV of another prompt, decode cannot answer its own right."""
    for decode in stages[Role.DECODE]:
        own = make(f"{id(decode)}:whole")
        handed = hand_over(stages[Role.PREFILL][0], own.text)
        answer = decode(own.text, max_tokens=ANSWER_TOKENS, kv_transfer_params=handed)
        check_right(answer, own)
        right = 0
        for index in range(PROMPTS):
            own, other = make(f"{id(decode)}:{index}"), make(f"{id(decode)}:{index}x")
            handed = hand_over(stages[Role.PREFILL][0], other.text)
            answer = decode(
                own.text, max_tokens=ANSWER_TOKENS, kv_transfer_params=handed
            )
            right += answer.text == own.expected
        assert not right, (
            f"decode answered {right} of {PROMPTS} prompts right although it was given "
            "another prompt's KV: it computes prompts itself"
        )


def check_right(answer, question):
    """Assert that decode, asked directly, answers from a hand-over that is whole."""
    assert answer.ok, f"decode, asked directly: {answer.error}"
    assert answer.text == question.expected, "wrong from a hand-over that is whole"


def hand_over(prefill, text):
    """Compute a prompt on a prefill worker; return what decode pulls it by."""
    answer = prefill(text, max_tokens=1, kv_transfer_params=dict(PULL_PARAMS))
    assert answer.ok, answer.error
    assert answer.kv_transfer_params, "prefill hands nothing over"
    return dict(answer.kv_transfer_params)
