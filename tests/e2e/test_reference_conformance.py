"""The reference engine against real vLLM: the same requests, the same words.

`DIFFERENCES` lists what is known to differ, by request; the page
docs/reference/reference-engine.md tells it to users. A difference that has gone
fails the test as well, so that the list stays true.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from pytest_pd.plan.model import Role
from pytest_pd.probe.metrics import Page
from pytest_pd.provision.deployment import Deployment
from pytest_pd.reference.prompts import make_recall
from tests.kit import wait_until
from tests.real_engine import PROJECT, brought_up, complete, needs, spec_of

pytestmark = pytest.mark.timeout(400)

RECALL = make_recall("conformance", length_tokens=100)
TEXT = RECALL.text
SHORT = ", w001 w002 , w002 w001 ? w001"
STAGED = {"do_remote_decode": True, "do_remote_prefill": False} | dict.fromkeys(
    ("remote_engine_id", "remote_block_ids", "remote_host", "remote_port")
)
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
USAGE = {"stream": True, "stream_options": {"include_usage": True}}


def ask(prompt: object = TEXT, **body: object) -> tuple[str, dict]:
    base = {"model": "tiny", "prompt": prompt, "max_tokens": 4, "temperature": 0}
    return COMPLETIONS, base | body


def chat(**body: object) -> tuple[str, dict]:
    messages = [{"role": "user", "content": TEXT}]
    base = {"model": "tiny", "messages": messages, "max_tokens": 4, "temperature": 0}
    return CHAT, base | body


REQUESTS: dict[str, tuple[str, dict | bytes | None]] = {
    "completion": ask(max_tokens=16),
    "stream": ask(stream=True),
    "stream with usage": ask(**USAGE),
    "logprobs": ask(logprobs=3),
    "echo": ask(echo=True, logprobs=1),
    "token ids": ask([1, 5, 6, 7, 5, 9, 10, 4, 6]),
    "two prompts": ask([TEXT, SHORT]),
    "stop word": ask(max_tokens=8, stop=[RECALL.expected[2]]),
    "prefill stage": ask(max_tokens=1, kv_transfer_params=STAGED),
    "chat": chat(),
    "chat logprobs": chat(logprobs=True, top_logprobs=2),
    "n of 2, greedy": ask(n=2),
    "unknown model": ask(model="nope"),
    "no prompt": (COMPLETIONS, {"model": "tiny"}),
    "empty prompt": ask(""),
    "negative max_tokens": ask(max_tokens=-1),
    "max_tokens beyond the context": ask(max_tokens=5000),
    "prompt beyond the context": ask("w001 " * 2100),
    "prompt far beyond the context": ask("w001 " * 3000),
    "temperature is a word": ask(temperature="hot"),
    "negative temperature": ask(temperature=-1),
    "top_p of 2": ask(top_p=2),
    "prompt is a number": ask(3.5),
    "chat without messages": (CHAT, {"model": "tiny"}),
    "broken JSON": (COMPLETIONS, b"{"),
    "unknown path": ("/v1/nothing", {}),
    "models": ("/v1/models", None),
    "health": ("/health", None),
    "version": ("/version", None),
    "tokenize": ("/tokenize", {"model": "tiny", "prompt": "w001 , w002"}),
    "detokenize": ("/detokenize", {"model": "tiny", "tokens": [1, 7, 5]}),
}
DIFFERENCES = {
    "stream": "vLLM's last event carries system_fingerprint",
    "stream with usage": "vLLM leaves null details out of a stream's usage",
    "two prompts": "vLLM reports the cached tokens of one prompt, here of both",
    "chat": "vLLM says created_cache_tokens 0, here null",
    "chat logprobs": "as chat",
    "n of 2, greedy": "vLLM refuses it, here two equal choices",
    "max_tokens beyond the context": "other words, other param",
    "prompt beyond the context": "vLLM counts characters first",
    "prompt far beyond the context": "vLLM counts characters first",
    "temperature is a word": "vLLM tries to read a number from the word",
    "negative temperature": "vLLM writes -1.0",
    "top_p of 2": "other words for the same bounds",
    "prompt is a number": "vLLM lists every type that a prompt may have",
    "chat without messages": "vLLM tells missing from wrong",
}
"""Request to what differs; status and error type are the same but for ``n``."""

FREE = ("id", "created", "system_fingerprint", "root", "permission", "rank")
"""Keys whose values differ from server to server, or by a tie of rounding."""

LOGPROB_TOLERANCE = 2e-3
"""The reference computes in another order than vLLM's CPU kernels."""

METRIC_DIFFERENCES = {
    Role.PREFILL: {"vllm:iteration_tokens_total_sum"},  # vLLM adds generated tokens
    Role.DECODE: set(),
}


@dataclass(frozen=True)
class Engine:
    """One deployment, and its answers to all requests, of one worker asked alone."""

    deployment: Deployment
    answers: dict[str, tuple[int, str]]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Engine]]:
    """Real vLLM and the reference engine, up in the same topology."""
    real = spec_of("vllm_cpu_1p1d_nixl_proxy")
    needs("vllm", real)
    stand_in = real.model_copy(
        update={
            "name": "reference_1p1d_nixl_proxy",
            "engine": real.engine.model_copy(
                update={"kind": "reference", "args": _known(real.engine.args)}
            ),
        }
    )
    run_dir = tmp_path_factory.mktemp("conformance")
    with brought_up(real, run_dir) as vllm, brought_up(stand_in, run_dir) as reference:
        yield _asked(vllm), _asked(reference)


def _known(args: tuple[str, ...]) -> tuple[str, ...]:
    return (*args, "--dtype", "float32")


def _asked(deployment: Deployment) -> Engine:
    worker = deployment.endpoints(Role.PREFILL)[0]
    with httpx.Client(base_url=worker.url, timeout=120, trust_env=False) as client:
        answers = {name: _send(client, *what) for name, what in REQUESTS.items()}
    return Engine(deployment, answers)


def _send(
    client: httpx.Client, path: str, body: dict | bytes | None
) -> tuple[int, str]:
    if body is None:
        response = client.get(path)
    elif isinstance(body, bytes):
        headers = {"content-type": "application/json"}
        response = client.post(path, content=body, headers=headers)
    else:
        response = client.post(path, json=body)
    return response.status_code, response.text


def comparable(text: str) -> Any:
    """Turn an answer into data without what differs by nature."""
    if text.startswith("data:"):
        events = [line.removeprefix("data: ") for line in text.splitlines() if line]
        whole = [json.loads(event) for event in events if event != "[DONE]"]
        return [_plain(_joined(whole)), events[-1]]
    return _plain(json.loads(text)) if text else text


def _joined(events: list[dict]) -> list[dict]:
    """Join the text of a stream: how many tokens an event has is timing."""
    merged = [e for e in events if e["choices"]]
    text = "".join(e["choices"][0]["text"] for e in merged)
    last = merged[-1]
    last["choices"][0]["text"] = text
    return [last, *(e for e in events if not e["choices"])]


def _plain(value: Any, key: str = "") -> Any:
    if key in FREE:
        return "free"
    if key == "kv_transfer_params" and value:
        return sorted(value)
    if key == "top_logprobs":
        return [_best(entry) for entry in value[:1]]
    if isinstance(value, dict):
        return {name: _plain(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, key) for item in value]
    return value


def _best(entry: Any) -> Any:
    """Keep the best alternative: the others are ties that rounding decides."""
    if isinstance(entry, dict) and "token" not in entry:
        return [max(entry, key=lambda token: entry[token])] if entry else entry
    return entry["token"] if isinstance(entry, dict) else entry


def same(left: Any, right: Any) -> bool:
    """Compare plain data; numbers with a fraction up to the tolerance."""
    if isinstance(left, float) and isinstance(right, float):
        return abs(left - right) <= LOGPROB_TOLERANCE
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(
            same(left[key], right[key]) for key in left
        )
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


@pytest.mark.parametrize("name", REQUESTS)
def test_answers_are_the_same(pair, name: str) -> None:
    (real_status, real), (status, text) = (engine.answers[name] for engine in pair)

    equal = real_status == status and same(comparable(real), comparable(text))

    if name in DIFFERENCES:
        assert status == real_status or name == "n of 2, greedy"
        assert not equal, f"{name!r} differs no more: take it off the list"
    else:
        assert equal, f"vLLM {real_status}: {real}\nreference {status}: {text}"


def test_answers_through_the_hand_over_are_the_same(pair) -> None:
    prompts = [make_recall(f"pd{i}", length_tokens=80 + 17 * i) for i in range(6)]

    real, reference = (
        [complete(e.deployment, p.text)["choices"][0]["text"] for p in prompts]
        for e in pair
    )

    assert real == reference == [prompt.expected_text for prompt in prompts]


def deltas(deployment: Deployment, role: Role, tag: str) -> dict[str, float]:
    """Growth of every vLLM counter of one worker over three P/D requests."""
    service = deployment.endpoints(role)[0].service
    settled = "vllm:request_success_total"
    before = deployment.evidence().pages[service]
    for index in range(3):
        prompt = make_recall(f"{tag}{index}", length_tokens=90 + index)
        complete(deployment, prompt.text, max_tokens=6)

    def after() -> Page:
        return deployment.evidence().pages[service]

    wait_until(lambda: _grown(before, after(), settled) == 3, "three requests counted")
    if role is Role.DECODE:
        moved = "vllm:nixl_bytes_transferred_count"
        wait_until(lambda: _grown(before, after(), moved) == 3, "three transfers")
    page = after()
    names = {name for name, _ in page.values if _is_counter(name)}
    return {name: _grown(before, page, name) for name in names}


def _grown(before: Page, after: Page, name: str) -> float:
    return (after.total(name) or 0.0) - (before.total(name) or 0.0)


def _is_counter(name: str) -> bool:
    counted = name.endswith(("_total", "_count", "_sum"))
    return name.startswith("vllm:") and counted and "seconds_sum" not in name


@pytest.mark.parametrize("role", [Role.PREFILL, Role.DECODE])
def test_every_counter_grows_alike(pair, role: Role) -> None:
    real, reference = (deltas(e.deployment, role, f"m{role}") for e in pair)

    assert real.keys() == reference.keys()
    differing = {name for name in real if real[name] != reference[name]}
    told = {name: (real[name], reference[name]) for name in differing}
    assert differing == METRIC_DIFFERENCES[role], told


def test_every_difference_is_told_to_users() -> None:
    page = PROJECT / "docs" / "reference" / "reference-engine.md"

    text = page.read_text()

    assert [name for name in DIFFERENCES if f"| {name} |" not in text] == []
