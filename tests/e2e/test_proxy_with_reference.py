"""The proxy in front of real reference engines: KV really goes over, and is right."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from pytest_pd.reference.prompts import make_recall

MODEL = Path(__file__).parents[2] / "fixtures" / "models" / "tiny"
DEADLINE_S = 60.0
BLOCK = 16
EXTERNAL = 'vllm:prompt_tokens_by_source_total{source="external_kv_transfer"}'
LOCAL = 'vllm:prompt_tokens_by_source_total{source="local_compute"}'


@dataclass
class Service:
    """A process of ours that listens."""

    name: str
    url: str
    process: subprocess.Popen
    log: Path

    def count(self, series):
        """Return a number from /metrics, summed over further labels; 0 if absent."""
        name, _, label = series.partition("{")
        text = httpx.get(f"{self.url}/metrics").text
        lines = [line for line in text.splitlines() if line.startswith(name + "{")]
        wanted = [line for line in lines if label.rstrip("}") in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in wanted)


@dataclass
class Stack:
    """Workers and the proxy in front of them."""

    prefill: list[Service]
    decode: list[Service]
    proxy: Service

    def ask(self, prompt, path="/v1/completions", *, tokens=8, headers=None, **body):
        """Send a greedy request through the proxy and return the response."""
        body = {"model": "tiny", "max_tokens": tokens, "temperature": 0, **body}
        body["prompt" if path.endswith("/completions") else "messages"] = prompt
        if "chat" in path:
            body["messages"] = body.pop("prompt")
        return httpx.post(
            self.proxy.url + path, json=body, headers=headers, timeout=DEADLINE_S
        )


def free_ports(number):
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(number)]
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in socks]


@contextmanager
def service(folder, name, argv, port, env=None):
    """Yield a service once its /health answers at all; it is gone afterwards."""
    log = folder / f"{name}.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", *argv, "--port", str(port)],
            stdout=sink,
            stderr=sink,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
            start_new_session=True,
        )
    try:
        found = Service(name, f"http://127.0.0.1:{port}", process, log)
        wait_until(lambda: answers(found, "/health"), found)
        yield found
    finally:
        process.kill()
        process.wait()


def answers(found, path, statuses=(200, 503)):
    try:
        return httpx.get(found.url + path, timeout=5).status_code in statuses
    except httpx.TransportError:
        return False


def wait_until(condition, found):
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        if found.process.poll() is not None or time.monotonic() > deadline_s:
            pytest.fail(f"{found.name} is not there:\n{found.log.read_text()[-3000:]}")
        time.sleep(0.05)


@contextmanager
def topology(folder, transfer, *, prefill=1, decode=1, proxy=()):
    """Yield a stack of reference engines behind a proxy, ready."""
    config = {"kv_connector": "NixlConnector"}
    if transfer == "shared_storage":
        config = {
            "kv_connector": "ExampleConnector",
            "kv_connector_extra_config": {"shared_storage_path": str(folder / "kv")},
        }
    with ExitStack() as stack:
        ports = iter(free_ports(2 * (prefill + decode) + 1))
        roles = []
        for role, kv_role, number in (
            ("prefill", "kv_producer", prefill),
            ("decode", "kv_consumer", decode),
        ):
            found = []
            for index in range(number):
                argv = [
                    "pytest_pd.reference", "serve", str(MODEL),
                    "--served-model-name", "tiny", "--block-size", str(BLOCK),
                    "--kv-transfer-config", json.dumps({**config, "kv_role": kv_role}),
                ]  # fmt: skip
                env = {
                    "VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1",
                    "VLLM_NIXL_SIDE_CHANNEL_PORT": str(next(ports)),
                }
                found.append(
                    stack.enter_context(
                        service(folder, f"{role}-{index}", argv, next(ports), env)
                    )
                )
            roles.append(found)
        argv = ["pytest_pd.proxy", "--transfer", transfer]
        argv += ["--health-interval-s", "0.1", *proxy]
        argv += ["--prefill-url", *(w.url + "/v1/completions" for w in roles[0])]
        argv += ["--decode-url", *(w.url for w in roles[1])]
        front = stack.enter_context(service(folder, "proxy", argv, next(ports)))
        wait_until(lambda: answers(front, "/health", (200,)), front)
        yield Stack(*roles, front)


@pytest.fixture(scope="module", params=["shared_storage", "pull", "auto"])
def stack(request, tmp_path_factory):
    """A 1P1D topology; under ``auto`` the engines pull."""
    folder = tmp_path_factory.mktemp(request.param)
    with topology(folder, request.param) as found:
        yield found


def moved_tokens(prompt, transfer_is_shared):
    """Return how many prompt tokens go over: whole blocks only through files."""
    if not transfer_is_shared:
        return prompt.prompt_tokens
    return (prompt.prompt_tokens - 1) // BLOCK * BLOCK


def is_shared(stack):
    return "transfer=shared_storage" in stack.proxy.log.read_text()


def test_the_answer_is_right_and_kv_went_over(stack, request):
    prompt = make_recall(request.node.nodeid, pairs=30, chain=8)
    before = [w.count(s) for w in stack.decode for s in (EXTERNAL, LOCAL)]
    prefill_before = stack.prefill[0].count(LOCAL)

    answer = stack.ask(prompt.text)

    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["text"] == prompt.expected_text
    after = [w.count(s) for w in stack.decode for s in (EXTERNAL, LOCAL)]
    moved = moved_tokens(prompt, is_shared(stack))
    assert after[0] - before[0] == moved
    assert after[1] - before[1] == prompt.prompt_tokens - moved
    assert stack.prefill[0].count(LOCAL) - prefill_before == prompt.prompt_tokens
    assert answer.headers["x-pd-prefill-worker"] == stack.prefill[0].url
    assert answer.headers["x-pd-decode-worker"] == stack.decode[0].url


def test_a_stream_says_the_same_and_ends_as_it_should(stack, request):
    prompt = make_recall(request.node.nodeid, pairs=20, chain=8)

    answer = stack.ask(prompt.text, stream=True, stream_options={"include_usage": True})

    *events, last = [e for e in answer.text.split("\n\n") if e]
    found = [json.loads(event.removeprefix("data: ")) for event in events]
    text = "".join(c["text"] for event in found for c in event["choices"])
    assert last == "data: [DONE]"
    assert text == prompt.expected_text
    assert found[-1]["usage"]["completion_tokens"] == 8
    assert found[-1]["usage"]["prompt_tokens"] == prompt.prompt_tokens


def test_chat_is_served_by_both_workers(stack):
    before = stack.prefill[0].count("vllm:request_success_total")

    answer = stack.ask(
        [{"role": "user", "content": "w001 w002"}], "/v1/chat/completions"
    )

    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"]
    assert stack.prefill[0].count("vllm:request_success_total") == before + 1


def test_prompt_logprobs_are_whole(stack, request):
    prompt = make_recall(request.node.nodeid, pairs=20, chain=8)

    answer = stack.ask(prompt.text, tokens=1, echo=True, logprobs=1)

    assert answer.status_code == 200, answer.text
    logprobs = answer.json()["choices"][0]["logprobs"]["token_logprobs"]
    assert len(logprobs) == prompt.prompt_tokens + 1
    assert all(isinstance(value, float) for value in logprobs[1:])


def test_several_prompts_in_one_request_are_all_right(stack, request):
    prompts = [
        make_recall(f"{request.node.nodeid}{n}", pairs=20, chain=8) for n in range(3)
    ]

    answer = stack.ask([prompt.text for prompt in prompts])

    found = sorted(answer.json()["choices"], key=lambda choice: choice["index"])
    assert [choice["text"] for choice in found] == [p.expected_text for p in prompts]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "nope", "prompt": "w001"}, 404),
        ({"model": "tiny", "prompt": "w001", "temperature": -1}, 400),
        ({"model": "tiny"}, 400),
    ],
)
def test_errors_of_the_engine_are_passed_on(stack, body, status):
    answers = [
        httpx.post(url + "/v1/completions", json=body, timeout=DEADLINE_S)
        for url in (stack.proxy.url, stack.decode[0].url)
    ]

    assert [answer.status_code for answer in answers] == [status, status]
    assert answers[0].json()["error"]["type"] == answers[1].json()["error"]["type"]


def test_a_body_that_is_not_json_gets_the_engine_s_own_answer(stack):
    answers = [
        httpx.post(
            url + "/v1/completions",
            content=b"{not json",
            headers={"Content-Type": "application/json"},
        )
        for url in (stack.proxy.url, stack.decode[0].url)
    ]

    assert answers[0].status_code == answers[1].status_code == 400
    assert answers[0].json() == answers[1].json()


def test_models_and_tokens_come_from_decode(stack):
    assert httpx.get(f"{stack.proxy.url}/v1/models").json()["data"][0]["id"] == "tiny"
    answer = httpx.post(
        f"{stack.proxy.url}/tokenize", json={"model": "tiny", "prompt": "w001 w002"}
    )
    assert answer.json()["count"] == 3


def stream_until_killed(stack, prompt):
    """Kill the decode worker after its second token.

    Returns:
        The worker, the lines got, and whether HTTP said that they were all.
    """
    body = {"model": "tiny", "prompt": prompt, "stream": True, "max_tokens": 600}
    victim, got = None, []
    with httpx.stream(
        "POST",
        f"{stack.proxy.url}/v1/completions",
        json={**body, "ignore_eos": True},
        timeout=DEADLINE_S,
    ) as response:
        name = response.headers["x-pd-decode-worker"]
        (victim,) = [worker for worker in stack.decode if worker.url == name]
        try:
            for line in response.iter_lines():
                got.append(line)
                if len(got) == 4:
                    victim.process.send_signal(signal.SIGKILL)
        except httpx.RemoteProtocolError:
            return victim, got, False
    return victim, got, True


@pytest.mark.parametrize("transfer", ["shared_storage", "pull"])
def test_a_decode_worker_killed_in_mid_stream_is_told_and_replaced(tmp_path, transfer):
    with topology(tmp_path, transfer, decode=2) as stack:
        prompt = make_recall("killed", pairs=30, chain=8)

        victim, got, whole = stream_until_killed(stack, prompt.text)

        assert not whole
        last = json.loads([line for line in got if line][-1].removeprefix("data: "))
        assert last["error"]["code"] == "stream_broken"
        assert victim.url in last["error"]["message"]
        assert not any("[DONE]" in line for line in got)
        for number in range(4):
            again = make_recall(f"after {number}", pairs=30, chain=8)
            answer = stack.ask(again.text)
            assert answer.json()["choices"][0]["text"] == again.expected_text
            assert answer.headers["x-pd-decode-worker"] != victim.url


def test_a_client_that_leaves_stops_the_engine(tmp_path):
    with topology(tmp_path, "shared_storage") as stack:
        body = {
            "model": "tiny", "prompt": make_recall("left", pairs=30).text,
            "stream": True, "max_tokens": 600, "ignore_eos": True,
        }  # fmt: skip
        url = f"{stack.proxy.url}/v1/completions"
        with httpx.stream("POST", url, json=body, timeout=DEADLINE_S) as response:
            next(response.iter_lines())

        aborted = 'vllm:request_success_total{finished_reason="abort"}'
        wait_until(lambda: stack.decode[0].count(aborted) == 1, stack.decode[0])
        produced = stack.decode[0].count("vllm:generation_tokens_total")
        assert produced < 600, "the engine went on for a client that had left"


def test_a_stream_in_flight_ends_well_when_the_proxy_is_told_to_stop(tmp_path):
    with topology(tmp_path, "pull", proxy=("--drain-timeout-s", "30")) as stack:
        prompt = make_recall("drained", pairs=30, chain=8)
        began, text = threading.Event(), []

        def client():
            body = {
                "model": "tiny", "prompt": prompt.text, "stream": True,
                "max_tokens": 600, "ignore_eos": True,
            }  # fmt: skip
            url = f"{stack.proxy.url}/v1/completions"
            with httpx.stream("POST", url, json=body, timeout=DEADLINE_S) as response:
                for piece in response.iter_text():
                    text.append(piece)
                    began.set()

        thread = threading.Thread(target=client)
        thread.start()
        assert began.wait(DEADLINE_S)
        assert "data: [DONE]" not in "".join(text)
        stack.proxy.process.send_signal(signal.SIGTERM)
        thread.join(DEADLINE_S)

        assert "".join(text).endswith("data: [DONE]\n\n")
        assert stack.proxy.process.wait(DEADLINE_S) == 0


def test_every_pair_of_two_by_two_hands_over(tmp_path):
    with topology(tmp_path, "pull", prefill=2, decode=2) as stack:
        pairs = set()
        for number in range(8):
            prompt = make_recall(f"pair {number}", pairs=20, chain=8)
            answer = stack.ask(prompt.text)
            assert answer.json()["choices"][0]["text"] == prompt.expected_text
            pairs.add(
                (
                    answer.headers["x-pd-prefill-worker"],
                    answer.headers["x-pd-decode-worker"],
                )
            )

        assert len(pairs) == 4
        moved = sum(worker.count(EXTERNAL) for worker in stack.decode)
        assert moved == 8 * prompt.prompt_tokens


def test_the_log_names_both_workers_of_each_request(stack):
    stack.ask("w001 w002", headers={"X-Request-Id": "witness-1"})

    wait_until(
        lambda: "request id=witness-1 " in stack.proxy.log.read_text(), stack.proxy
    )
    (line,) = re.findall(r"request id=witness-1 .*", stack.proxy.log.read_text())
    assert f"prefill={stack.prefill[0].url} decode={stack.decode[0].url}" in line
    assert "outcome=ok" in line
