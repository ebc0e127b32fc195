"""P/D answers what aggregated serving answers, token by token."""

from __future__ import annotations

import pytest

from pytest_pd.measure.agree import first_divergence
from pytest_pd.reference.prompts import block_edge_lengths

pytestmark = [
    pytest.mark.correctness,
    pytest.mark.pd_needs("disaggregated", "true_tokens", "deterministic"),
]

PROMPTS = 50
ANSWER_TOKENS = 16


def lengths(block: int) -> list[int]:
    """Return 50 prompt lengths in tokens, one in two at the edge of a block."""
    edges = [n for blocks in range(2, 10) for n in block_edge_lengths(block, blocks)]
    inner = [block * 2 + 7 * i + i % block for i in range(PROMPTS - len(edges))]
    return [min(n, 760) for pair in zip(edges, inner, strict=False) for n in pair] + [
        min(n, 760) for n in inner[len(edges) :]
    ]


@pytest.fixture
def questions(prompts, deployment):
    block = deployment.plan.expected.block_tokens or 16
    return [
        prompts.make(i, tokens=n, answer_tokens=ANSWER_TOKENS)
        for i, n in enumerate(lengths(block))
    ]


@pytest.mark.pd_needs("workers_answer")
def test_greedy_output_equals_aggregated(ask, ask_aggregated, questions):
    differing = []
    for index, question in enumerate(questions):
        split = ask(question.text, max_tokens=ANSWER_TOKENS)
        whole = ask_aggregated(question.text, max_tokens=ANSWER_TOKENS)
        assert split.ok, split.error
        assert whole.ok, whole.error
        if (place := first_divergence(split.words, whole.words)) is not None:
            differing.append((index, question.tokens, place))

    assert not differing, (
        f"{len(differing)} of {len(questions)} prompts differ from aggregated; "
        f"(index, prompt tokens, first differing token): {differing[:10]}"
    )


@pytest.mark.pd_needs("known_answers")
def test_answers_are_right(ask, questions):
    wrong = [
        (index, question.tokens)
        for index, question in enumerate(questions)
        if ask(question.text, max_tokens=ANSWER_TOKENS).text != question.expected
    ]

    assert not wrong, f"wrong answers at (index, prompt tokens): {wrong[:10]}"


@pytest.mark.pd_needs("known_answers")
@pytest.mark.pd_level("standard")
def test_answers_stay_right_over_many_requests(ask, prompts):
    """Damage that grows with the number of requests shows in the last third."""
    right = [
        ask(question.text, max_tokens=8).text == question.expected
        for question in (
            prompts.make(f"drift{i}", tokens=100, answer_tokens=8) for i in range(150)
        )
    ]

    first, last = sum(right[:50]), sum(right[100:])
    assert first == last == 50, f"right in the first 50: {first}, in the last: {last}"
