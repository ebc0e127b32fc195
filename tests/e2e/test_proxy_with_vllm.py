"""The built-in proxy in front of real vLLM on CPU, which pulls KV over NIXL."""

from __future__ import annotations

import json

import httpx
import pytest

from pytest_pd.plan.model import Role
from pytest_pd.reference.prompts import make_recall
from tests.real_engine import brought_up, needs, spec_of

pytestmark = pytest.mark.timeout(600)

DEADLINE_S = 180.0
EXTERNAL = 'source="external_kv_transfer"'


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    topology = spec_of("vllm_cpu_1p1d_nixl_proxy")
    needs("vllm", topology)
    with brought_up(topology, tmp_path_factory.mktemp("proxy-vllm")) as found:
        yield found


def post(deployment, prompt, path="/v1/completions", **body):
    body = {"model": "tiny", "temperature": 0, "max_tokens": 8, **body}
    body["messages" if "chat" in path else "prompt"] = prompt
    return httpx.post(deployment.url + path, json=body, timeout=DEADLINE_S)


def external_tokens(deployment):
    """Return prompt tokens that the decode worker says it got from elsewhere."""
    url = deployment.endpoints(Role.DECODE)[0].url
    lines = httpx.get(f"{url}/metrics", timeout=DEADLINE_S).text.splitlines()
    name = "vllm:prompt_tokens_by_source_total"
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith(name) and EXTERNAL in line
    )


def test_every_prompt_is_handed_over_and_answered_right(deployment):
    prompts = [make_recall(f"proxy {n}", length_tokens=70 + 13 * n) for n in range(8)]
    before = external_tokens(deployment)

    answers = [post(deployment, prompt.text) for prompt in prompts]

    texts = [answer.json()["choices"][0]["text"] for answer in answers]
    assert texts == ["".join(f" {t}" for t in p.expected[:8]) for p in prompts]
    for answer in answers:
        for role in (Role.PREFILL, Role.DECODE):
            (worker,) = deployment.endpoints(role)
            assert answer.headers[f"x-pd-{role}-worker"] == worker.url
    moved = external_tokens(deployment) - before
    assert moved == sum(prompt.prompt_tokens for prompt in prompts)


def test_a_stream_ends_with_usage_and_done(deployment):
    prompt = make_recall("proxy stream", length_tokens=90)

    answer = post(
        deployment, prompt.text, stream=True, stream_options={"include_usage": True}
    )

    *events, last = [event for event in answer.text.split("\n\n") if event]
    found = [json.loads(event.removeprefix("data: ")) for event in events]
    text = "".join(c["text"] for event in found for c in event["choices"])
    assert last == "data: [DONE]"
    assert text == "".join(f" {token}" for token in prompt.expected[:8])
    assert found[-1]["usage"]["prompt_tokens"] == prompt.prompt_tokens


def test_prompt_logprobs_are_those_of_the_worker_asked_directly(deployment):
    prompt = make_recall("proxy logprobs", length_tokens=80)
    body = {
        "model": "tiny", "prompt": prompt.text, "temperature": 0,
        "max_tokens": 1, "echo": True, "logprobs": 1,
    }  # fmt: skip

    found = [
        httpx.post(f"{url}/v1/completions", json=body, timeout=DEADLINE_S).json()
        for url in (deployment.url, deployment.endpoints(Role.PREFILL)[0].url)
    ]

    one, two = (f["choices"][0]["logprobs"]["token_logprobs"] for f in found)
    assert len(one) == prompt.prompt_tokens + 1
    assert one[1:] == pytest.approx(two[1:], abs=1e-4)


def test_several_prompts_and_several_answers_are_right(deployment):
    prompts = [make_recall(f"proxy many {n}", length_tokens=75 + n) for n in range(3)]

    answer = post(deployment, [prompt.text for prompt in prompts])

    found = sorted(answer.json()["choices"], key=lambda choice: choice["index"])
    expected = ["".join(f" {t}" for t in p.expected[:8]) for p in prompts]
    assert [choice["text"] for choice in found] == expected


@pytest.mark.parametrize(
    "body",
    [
        {"model": "nope"},
        {"temperature": -1},
        {"max_tokens": 8, "min_tokens": 9},
        {"max_tokens": 100_000},
        {"n": 2, "temperature": 0.1, "min_tokens": 4, "stop": ["w9"], "logprobs": 1},
    ],
    ids=["model", "temperature", "min_tokens", "too_long", "good_with_ornaments"],
)
def test_status_is_that_of_one_engine_alone(deployment, body):
    body = {"model": "tiny", "prompt": "w001 w002", "max_tokens": 8, **body}

    statuses = [
        httpx.post(f"{url}/v1/completions", json=body, timeout=DEADLINE_S).status_code
        for url in (deployment.url, deployment.endpoints(Role.DECODE)[0].url)
    ]

    assert statuses[0] == statuses[1]
