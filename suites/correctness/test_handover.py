"""KV goes from prefill to decode: three witnesses, each around its own window."""

from __future__ import annotations

import pytest

from pytest_pd.plan.expect import handed_over_bytes, handed_over_tokens
from pytest_pd.plan.model import Role
from pytest_pd.probe.trouble import named_trouble
from pytest_pd.reference.prompts import block_edge_lengths

pytestmark = [pytest.mark.correctness, pytest.mark.pd_needs("disaggregated")]


@pytest.fixture
def questions(prompts, deployment):
    """Eight prompts that nobody sent before, at the edges of blocks and inside."""
    block = deployment.plan.expected.block_tokens or 16
    lengths = [*block_edge_lengths(block, 4), *block_edge_lengths(block, 7)]
    lengths += [block * 3 + 5, block * 9 + 11]
    return [prompts.make(i, tokens=n) for i, n in enumerate(lengths)]


def send(ask, questions):
    """Ask them all; return how many tokens each prompt had."""
    lengths = []
    for question in questions:
        answer = ask(question.text, max_tokens=4)
        assert answer.ok, answer.error
        # of a real model's prompt only the engine knows the length
        lengths.append(question.tokens or answer.usage["prompt_tokens"])
    return lengths


@pytest.mark.pd_needs("counts_tokens")
def test_prefill_computes_the_prompts(ask, watch, questions):
    with watch() as seen:
        lengths = send(ask, questions)

    prefill = seen.window.total(Role.PREFILL, "prompt_tokens")
    assert prefill is not None, "no prefill worker counts prompt tokens"
    tokens = sum(lengths)
    assert prefill == tokens, f"prefill saw {prefill} prompt tokens of {tokens}"
    troubles = named_trouble(seen.window, sent=len(questions), prompt_tokens=tokens)
    assert not troubles, "\n".join(troubles)
    assert seen.window.total(Role.PREFILL, "external_tokens") in (None, 0)


@pytest.mark.pd_needs("counts_tokens", "handed_tokens")
def test_decode_gets_the_tokens_that_the_prompts_predict(
    ask, watch, questions, deployment
):
    expected = deployment.plan.expected
    for question in questions:
        with watch() as seen:
            (tokens,) = send(ask, [question])
        window = seen.window

        handed = window.total(Role.DECODE, "external_tokens")
        assert handed in handed_over_tokens(expected, tokens), (
            f"decode got {handed} of {tokens} prompt tokens from prefill"
        )
        computed = window.total(Role.DECODE, "computed_tokens")
        if computed is not None:
            assert computed <= tokens - handed + 1, (
                f"decode computed {computed} prompt tokens itself"
            )


@pytest.mark.pd_needs("handed_bytes")
def test_bytes_are_those_of_the_models_shape(ask, watch, questions, deployment):
    with watch() as seen:
        lengths = send(ask, questions)

    moved = seen.window.total(Role.DECODE, "transferred_bytes")
    expected = deployment.plan.expected
    assert moved == sum(handed_over_bytes(expected, n) for n in lengths)
    assert seen.window.total(Role.DECODE, "transfer_failures") in (None, 0)


@pytest.mark.pd_needs("handed_files")
def test_decode_logs_the_hit(ask, watch, questions, deployment):
    with watch(logs=True) as seen:
        lengths = send(ask, questions)

    if away := seen.window.without_log(Role.DECODE):
        pytest.skip(f"its log is not here: {', '.join(away)}")
    expected = deployment.plan.expected
    sure = [n for n in lengths if 0 not in handed_over_tokens(expected, n)]
    decode = seen.window.of_role(Role.DECODE).values()
    hits = sum(worker.log_hit or 0 for worker in decode)
    injected = sum(worker.log_inject or 0 for worker in decode)
    assert len(sure) <= hits <= len(questions)
    assert injected >= len(sure)


@pytest.mark.pd_needs("router")
def test_router_sent_every_request_through_both_phases(ask, watch, questions):
    with watch() as seen:
        send(ask, questions)

    if not seen.window.router.prefill_requests:
        pytest.skip("this router does not count requests per worker")
    for role in (Role.PREFILL, Role.DECODE):
        routed = seen.window.routed(role)
        assert sum(routed.values()) == len(questions), f"{role}: {routed}"


@pytest.mark.pd_needs("counts_tokens")
def test_decode_generates_the_answer(ask, watch, questions):
    with watch() as seen:
        send(ask, questions)

    generated = seen.window.total(Role.DECODE, "generated_tokens")
    assert generated == 4 * len(questions)
    prefill = seen.window.total(Role.PREFILL, "generated_tokens")
    assert prefill in (None, 0, len(questions)), "prefill generated more than a token"
