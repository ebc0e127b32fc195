"""What arrives in a stream is what was generated: one token an event, on time.

TTFT and inter-token latency count events. An event without text, or one with
several tokens, makes every latency figure wrong while each answer is right.
"""

from __future__ import annotations

import statistics
import time

import pytest

from pytest_pd.probe.openai import COMPLETIONS

pytestmark = [pytest.mark.correctness, pytest.mark.pd_needs("known_answers")]

TOKENS = 16
STREAMS = 12
REQUESTS = 40
HELD_UP_S = 3.0
"""An answer takes no longer than this, or 20 times the median where that is more."""
MOST_TIMES = 20.0


@pytest.fixture
def texts(ask, prompts):
    """Return the texts of the events of one quiet stream."""

    def _texts(key):
        answer = ask(
            prompts.make(key, tokens=60, answer_tokens=TOKENS).text,
            max_tokens=TOKENS,
            stream=True,
        )
        assert answer.ok, answer.error
        choices = [event["choices"][0] for event in answer.events if event["choices"]]
        return [choice["text"] for choice in choices]

    return _texts


def test_a_stream_brings_one_token_in_an_event(texts):
    """An engine that is behind may join two now and then; most come alone."""
    counts = [len(text.split()) for key in range(4) for text in texts(key) if text]

    alone = counts.count(1) / len(counts)

    assert alone > 0.5, f"tokens in one event: {counts}"


def test_tokens_are_not_kept_back_for_company(client, deployment, prompts):
    """What gathers events before it sends them hides what latency is made of.

    Under load an event may catch up with the one before it, so the best of a few
    streams counts.
    """
    alone = 0.0
    for key in range(STREAMS):
        question = prompts.make(f"apart{key}", tokens=60, answer_tokens=TOKENS)
        body = {
            "model": deployment.plan.served_model,
            "prompt": question.text,
            "max_tokens": TOKENS,
            "temperature": 0,
            "stream": True,
        }
        with client.stream("POST", COMPLETIONS, json=body) as response:
            counts = [piece.count(b'"text"') for piece in response.iter_raw()]
        filled = [count for count in counts if count]
        assert filled, "a stream without tokens"
        alone = max(alone, filled.count(1) / len(filled))
        if alone > 0.5:
            break

    assert alone > 0.5, f"tokens that came together, of the last stream: {filled}"


def test_a_stream_begins_with_a_token(texts):
    first = [texts(key)[0] for key in range(4)]

    assert all(first), f"first events: {first}; TTFT is taken at an event without text"


def test_streams_bring_every_token_once(ask, prompts):
    wrong = []
    for index in range(8):
        question = prompts.make(index, tokens=60, answer_tokens=TOKENS)
        streamed = ask(question.text, max_tokens=TOKENS, stream=True)
        if streamed.text != question.expected:
            wrong.append((index, streamed.words, question.expected.split()))

    assert not wrong, f"(stream, came, expected): {wrong[:2]}"


@pytest.mark.measure
def test_no_answer_is_held_up(ask, prompts):
    """One request that hangs for seconds among quick ones is a fault, not noise."""
    took_s = []
    for index in range(REQUESTS):
        question = prompts.make(index, tokens=40, answer_tokens=8)
        begun_s = time.perf_counter()
        assert ask(question.text, max_tokens=8, stream=True).ok
        took_s.append(time.perf_counter() - begun_s)

    most_s = max(HELD_UP_S, MOST_TIMES * statistics.median(took_s))
    late = {index: round(s, 2) for index, s in enumerate(took_s) if s > most_s}
    assert not late, f"request: seconds {late}, median {statistics.median(took_s):.3f}"
