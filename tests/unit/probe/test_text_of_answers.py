"""All that a model says is its text, whichever key it is under."""

from __future__ import annotations

import json
from dataclasses import replace

import httpx
import pytest

from pytest_pd.fixtures.ask import asker
from pytest_pd.probe.openai import CHAT, from_events, text_of
from tests.kit import plan_of


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"text": "plain"}, "plain"),
        ({"text": None}, ""),
        ({"message": {"content": "said"}}, "said"),
        ({"message": {"content": None, "reasoning": "thought"}}, "thought"),
        ({"message": {"content": None, "reasoning_content": "thought"}}, "thought"),
        ({"message": {"content": " said", "reasoning": "thought"}}, "thought said"),
        (
            {"message": {"reasoning": "once", "reasoning_content": "once"}},
            "once",
        ),
        ({"delta": {"reasoning": "a"}}, "a"),
        ({"delta": {"role": "assistant", "content": ""}}, ""),
        ({"delta": "no object"}, ""),
    ],
)
def test_text_is_thought_and_said(choice, text):
    assert text_of({"choices": [choice]}) == text


def test_a_stream_says_what_the_whole_answer_says():
    parts = [{"reasoning": "tho"}, {"reasoning": "ught"}, {"content": " said"}]
    events = [json.dumps({"choices": [{"delta": part}]}) for part in parts]

    answer = from_events(200, {}, [*events, "[DONE]"])

    assert answer.text == "thought said"


@pytest.mark.parametrize(
    ("engine", "told"),
    [("vllm", True), ("dynamo", True), ("reference", True), ("unknown", False)],
)
@pytest.mark.parametrize("path", ["/v1/completions", CHAT])
def test_only_engines_that_know_it_are_told_not_to_stop_early(engine, told, path):
    sent = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return httpx.Response(200, json={"choices": [{"text": "a"}]})

    with httpx.Client(
        base_url="http://x", transport=httpx.MockTransport(answer)
    ) as client:
        ask = asker(client, replace(plan_of([]), engine=engine))
        ask("a question", path=path)
        ask("a question", path=path, ignore_eos=False)
        ask("a question", path=path, stop=["."])

    assert sent[0].get("ignore_eos", False) is told
    assert sent[1]["ignore_eos"] is False
    assert "ignore_eos" not in sent[2]  # how it may end is said
