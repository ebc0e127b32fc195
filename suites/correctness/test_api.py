"""Every endpoint answers as the OpenAI API promises, through the router."""

from __future__ import annotations

import time

import pytest

from pytest_pd.probe.openai import CHAT, COMPLETIONS

pytestmark = pytest.mark.correctness

CLOCKS_APART_S = 30.0
ENDPOINTS = pytest.mark.parametrize("path", [COMPLETIONS, CHAT], ids=["text", "chat"])


@ENDPOINTS
def test_whole_answer(ask, prompts, path):
    answer = ask(prompts.make("whole", tokens=60).text, path=path, max_tokens=8)

    assert answer.status == 200
    assert answer.text
    assert answer.finish_reason == "length"
    assert answer.usage["completion_tokens"] == 8
    assert answer.usage["total_tokens"] == answer.usage["prompt_tokens"] + 8


@ENDPOINTS
def test_stream_ends_with_done_and_usage(ask, prompts, path):
    answer = ask(
        prompts.make("stream", tokens=60).text,
        path=path,
        max_tokens=8,
        stream=True,
        stream_options={"include_usage": True},
    )

    assert answer.status == 200
    assert answer.done, "the stream ended without [DONE]"
    assert answer.error is None
    assert answer.finish_reason == "length"
    assert answer.usage["completion_tokens"] == 8


@ENDPOINTS
@pytest.mark.pd_needs("true_tokens", "deterministic")
def test_stream_says_what_the_whole_answer_says(ask, prompts, path):
    question = prompts.make("both", tokens=60).text

    whole = ask(question, path=path)
    streamed = ask(question, path=path, stream=True)

    assert whole.ok, whole.error
    assert streamed.ok, streamed.error
    assert streamed.text == whole.text


@pytest.mark.pd_needs("true_tokens")
def test_prompt_length_is_counted_right(ask, prompts):
    question = prompts.make("count", tokens=61)
    if not question.tokens:
        pytest.skip("the exact length of a prompt is not known for this model")

    answer = ask(question.text, max_tokens=4)

    assert answer.usage["prompt_tokens"] == question.tokens


def test_model_is_listed(client, deployment):
    listed = client.get("/v1/models").json()["data"]

    assert deployment.plan.served_model in [model["id"] for model in listed]


def test_answers_are_dated_by_our_clock(client, deployment):
    """Logs of all services are put in order by their own clocks."""
    request = {"model": deployment.plan.served_model, "prompt": "a", "max_tokens": 2}

    created_s = client.post(COMPLETIONS, json=request).json()["created"]

    assert abs(created_s - time.time()) < CLOCKS_APART_S, "set the clock of its node"


@pytest.mark.parametrize(
    ("body", "statuses"),
    [
        pytest.param({"prompt": 3.5}, {400, 422}, id="prompt-is-a-number"),
        pytest.param({"prompt": "a", "max_tokens": -1}, {400, 422}, id="negative"),
        pytest.param({"prompt": "a", "temperature": "hot"}, {400, 422}, id="type"),
        pytest.param(
            {"prompt": "a", "model": "no-such-model"}, {404}, id="unknown-model"
        ),
    ],
)
@pytest.mark.pd_needs("checks_requests")
def test_malformed_request_is_refused(client, deployment, body, statuses):
    request = {"model": deployment.plan.served_model, "max_tokens": 4, **body}

    response = client.post(COMPLETIONS, json=request)

    assert response.status_code in statuses, response.text


def test_broken_json_is_refused(client):
    response = client.post(
        COMPLETIONS, content=b"{", headers={"content-type": "application/json"}
    )

    assert 400 <= response.status_code < 500


@pytest.mark.pd_needs("checks_requests")
def test_context_overflow_is_refused(ask):
    answer = ask("w001 " * 300_000, max_tokens=4)

    assert answer.status in (400, 413)


def test_unknown_path_is_refused(client):
    # vllm-router answers 405 where it would only ever forward a POST
    assert client.get("/v1/no-such-thing").status_code in (404, 405)


@pytest.mark.pd_needs("true_tokens", "deterministic")
def test_requests_beside_each_other_do_not_mix(ask, prompts):
    from concurrent.futures import ThreadPoolExecutor

    questions = [prompts.make(i, tokens=70) for i in range(16)]

    def text(question):
        answer = ask(question.text)
        assert answer.ok, answer.error
        return answer.text

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(text, questions))

    assert together == [text(question) for question in questions]
