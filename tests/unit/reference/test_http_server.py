"""What the recorded samples do not cover: lists, echoes, keys, ranks, faults, logs."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys

import httpx
import pytest

from pytest_pd.reference.prompts import make_recall

PROMPT = make_recall("http", pairs=12, chain=12)


def chunks(response: httpx.Response) -> list[dict]:
    lines = [line for line in response.text.splitlines() if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


@pytest.mark.parametrize("stream", [False, True])
def test_a_completion_is_the_known_truth(server, stream: bool):
    response = server.complete(PROMPT.text, max_tokens=12, stream=stream)

    if stream:
        text = "".join(c["choices"][0]["text"] for c in chunks(response))
    else:
        text = response.json()["choices"][0]["text"]
    assert text == PROMPT.expected_text


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_is_the_known_truth(server, stream: bool):
    body = {
        "messages": [{"role": "user", "content": PROMPT.text}],
        "max_completion_tokens": 12,
        "temperature": 0,
        "stream": stream,
    }
    response = server.post("/v1/chat/completions", body)

    if stream:
        deltas = [c["choices"][0]["delta"] for c in chunks(response)]
        assert deltas[0] == {"role": "assistant", "content": ""}
        text = "".join(delta["content"] for delta in deltas)
    else:
        text = response.json()["choices"][0]["message"]["content"]
    assert text == PROMPT.expected_text


def test_content_may_come_in_parts(server):
    parts = [
        {"type": "text", "text": ", w001 w002"},
        {"type": "text", "text": "? w001"},
    ]
    body = {"messages": [{"role": "user", "content": parts}], "max_tokens": 1}

    response = server.post("/v1/chat/completions", {**body, "temperature": 0})

    assert response.json()["choices"][0]["message"]["content"] == " w002"


def test_prompts_come_in_lists(server):
    prompts = [make_recall(i, pairs=6, chain=3) for i in range(3)]

    body = server.complete([p.text for p in prompts], max_tokens=3).json()

    assert [c["text"] for c in body["choices"]] == [p.expected_text for p in prompts]
    assert [c["index"] for c in body["choices"]] == [0, 1, 2]
    assert body["usage"]["prompt_tokens"] == sum(p.prompt_tokens for p in prompts)
    assert body["usage"]["completion_tokens"] == 9


def test_token_ids_come_in_lists(server):
    body = server.complete([[1, 5, 7, 8, 4, 7], [1, 5, 9, 6 + 9, 4, 9]], max_tokens=1)

    assert [c["text"] for c in body.json()["choices"]] == [" w002", " w009"]


def test_several_answers_to_one_prompt(server):
    body = server.complete(
        PROMPT.text, n=3, max_tokens=8, temperature=4.0, seed=1
    ).json()

    texts = [choice["text"] for choice in body["choices"]]
    assert len(set(texts)) == 3
    assert body["usage"]["prompt_tokens"] == PROMPT.prompt_tokens
    assert body["usage"]["completion_tokens"] == 24


def test_several_answers_in_one_stream(server):
    response = server.complete(PROMPT.text, n=2, max_tokens=4, stream=True)

    by_index = {0: "", 1: ""}
    for chunk in chunks(response):
        (choice,) = chunk["choices"]
        by_index[choice["index"]] += choice["text"]
    assert by_index[0] == by_index[1] == "".join(f" {w}" for w in PROMPT.expected[:4])


@pytest.mark.parametrize("stream", [False, True])
def test_an_echo_without_generation_is_the_prompt(server, stream: bool):
    response = server.complete(
        ", w001 w002", max_tokens=0, echo=True, logprobs=1, stream=stream
    )

    choice = (chunks(response) if stream else [response.json()])[0]["choices"][0]
    assert choice["text"] == ", w001 w002"
    assert choice["logprobs"]["tokens"] == ["<s>", ",", "w001", "w002"]
    assert choice["logprobs"]["token_logprobs"][0] is None
    if not stream:
        assert response.json()["usage"]["completion_tokens"] == 0


def test_an_echo_in_a_stream_comes_first(server):
    response = server.complete(
        ", w001 w002 ? w001", max_tokens=2, echo=True, stream=True
    )

    texts = [c["choices"][0]["text"] for c in chunks(response)]
    assert texts == [", w001 w002 ? w001 w002", " w002"]


def test_offsets_of_logprobs_go_on_through_a_stream(server):
    response = server.complete(PROMPT.text, max_tokens=3, logprobs=1, stream=True)

    offsets = [c["choices"][0]["logprobs"]["text_offset"] for c in chunks(response)]
    assert offsets == [[0], [4], [8]]


def test_chat_logprobs(server):
    body = {
        "messages": [{"role": "user", "content": PROMPT.text}],
        "max_tokens": 2,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 2,
    }

    choice = server.post("/v1/chat/completions", body).json()["choices"][0]

    first = choice["logprobs"]["content"][0]
    assert first["token"] == PROMPT.expected[0]
    assert first["bytes"] == list(PROMPT.expected[0].encode())
    assert len(first["top_logprobs"]) == 2
    assert first["top_logprobs"][0]["token"] == PROMPT.expected[0]


def test_stop_texts_end_an_answer(server):
    choice = server.complete(
        PROMPT.text, max_tokens=12, stop=[PROMPT.expected[3]]
    ).json()["choices"][0]

    assert choice["finish_reason"] == "stop"
    assert choice["stop_reason"] == PROMPT.expected[3]
    assert choice["text"].split() == PROMPT.expected[:3]


def test_usage_may_come_with_every_chunk(server):
    options = {"include_usage": True, "continuous_usage_stats": True}
    response = server.complete(
        PROMPT.text, max_tokens=3, stream=True, stream_options=options
    )

    counts = [c["usage"]["completion_tokens"] for c in chunks(response)]
    assert counts == [1, 2, 3, 3]


def test_token_ids_may_be_returned(server):
    choice = server.complete(
        ", w001 w002 ? w001", max_tokens=1, return_token_ids=True
    ).json()["choices"][0]

    assert choice["token_ids"] == [8]
    assert choice["prompt_token_ids"] == [1, 5, 7, 8, 4, 7]


def test_a_router_may_name_the_request(server):
    response = server.post(
        "/v1/completions",
        {"prompt": ", w001", "max_tokens": 1},
        headers={"X-Request-Id": "___prefill_addr_a___decode_addr_b_1"},
    )

    assert response.json()["id"] == "cmpl-___prefill_addr_a___decode_addr_b_1"


def test_a_repeat_is_told_in_the_usage(server):
    prompt = make_recall("usage", length_tokens=100)
    cold, warm = (
        server.complete(prompt.text, max_tokens=1).json()["usage"] for _ in range(2)
    )

    assert cold["prompt_tokens_details"]["cached_tokens"] == 0
    assert warm["prompt_tokens_details"]["cached_tokens"] == 96


def test_the_cache_can_be_emptied(server):
    prompt = make_recall("emptied", length_tokens=100)
    server.complete(prompt.text, max_tokens=1)

    assert server.post("/reset_prefix_cache").status_code == 200

    usage = server.complete(prompt.text, max_tokens=1).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 0


@pytest.mark.parametrize("path", ["/health", "/ping", "/load"])
def test_small_endpoints_answer(server, path: str):
    assert server.get(path).status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": "w001", "max_tokens": "many"}, "body.max_tokens"),
        ({"prompt": "w001", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "w001", "temperature": -1}, "temperature"),
        ({"prompt": "w001", "temperature": "hot"}, "body.temperature"),
        ({"prompt": "w001", "top_p": 0}, "top_p"),
        ({"prompt": "w001", "top_p": 1.5}, "top_p"),
        ({"prompt": "w001", "n": 0}, "n"),
        ({"prompt": "w001", "stream": "yes"}, "body.stream"),
        ({"prompt": "w001", "logprobs": 21}, "logprobs"),
        ({"prompt": "w001", "logit_bias": {"7": 5}}, "logit_bias"),
        ({"prompt": "w001", "presence_penalty": 0.5}, "presence_penalty"),
        (
            {"prompt": "w001", "stream_options": {"include_usage": True}},
            "stream_options",
        ),
        ({"prompt": [7, 300]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["w001", 5]}, "body.prompt"),
        ({"prompt": "w001", "max_tokens": 5000}, "input_tokens"),
    ],
)
def test_malformed_requests_are_refused(server, body, param: str):
    response = server.post("/v1/completions", body)

    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == param
    assert error["code"] == 400
    assert error["message"]


def test_the_longest_prompt_leaves_room_for_one_token(server):
    refused = server.complete([7] * 2048, max_tokens=1)
    accepted = server.complete([7] * 2047, max_tokens=1)

    assert refused.status_code == 400
    assert "maximum context length is 2048" in refused.json()["error"]["message"]
    assert accepted.json()["usage"]["total_tokens"] == 2048


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": []},
        {"messages": "hello"},
        {"messages": ["hello"]},
        {"messages": [{"content": "w001"}]},
    ],
)
def test_malformed_chats_are_refused(server, body):
    assert server.post("/v1/chat/completions", body).status_code == 400


def test_a_body_that_is_no_object_is_refused(server):
    assert server.post("/v1/completions", [1, 2]).status_code == 400


def test_a_method_that_is_not_allowed(server):
    assert server.get("/v1/completions").status_code == 405


def test_refusals_are_not_counted_as_requests(server):
    before = server.value("vllm:request_success_total")
    server.post("/v1/completions", {"prompt": ""})

    assert server.value("vllm:request_success_total") == before


def test_answers_are_counted_by_status(server):
    def counted(status: str) -> float:
        labels = {"handler": "/v1/completions", "status": status}
        return server.value("http_requests_total", **labels)

    before = counted("2xx"), counted("4xx")
    server.complete("w001", max_tokens=1)
    server.complete("", max_tokens=1)

    assert (counted("2xx"), counted("4xx")) == (before[0] + 1, before[1] + 1)


def test_cache_config_is_told(server):
    line = next(
        line
        for line in server.get("/metrics").text.splitlines()
        if line.startswith("vllm:cache_config_info")
    )

    assert 'block_size="32"' in line
    assert 'num_gpu_blocks="384"' in line


def test_a_client_that_leaves_aborts_its_request(server):
    before = server.value("vllm:request_success_total", finished_reason="abort")
    body = {"prompt": PROMPT.text, "max_tokens": 1900, "stream": True, "temperature": 0}

    with server.client.stream(
        "POST", f"{server.url}/v1/completions", json=body
    ) as answer:
        next(answer.iter_lines())

    while server.value("vllm:request_success_total", finished_reason="abort") == before:
        assert server.value("vllm:num_requests_running") <= 1
    assert server.value("vllm:num_requests_running") == 0


def test_keys_guard_the_api_and_nothing_else(start_server):
    server = start_server("--api-key", "secret-key")

    assert server.get("/health").status_code == 200
    assert server.get("/metrics").status_code == 200
    assert server.get("/v1/models").status_code == 401
    assert server.get("/v1/models").json() == {"error": "Unauthorized"}
    headers = {"Authorization": "Bearer secret-key"}
    assert server.get("/v1/models", headers=headers).status_code == 200
    assert "secret-key" not in server.log.read_text()


def test_ranks_have_labels_and_headers(start_server):
    words = "-dp 4 --data-parallel-size-local 2 --data-parallel-hybrid-lb"
    server = start_server(*words.split(), "--data-parallel-start-rank", "2")

    def counted() -> dict[str, float]:
        return {
            rank: server.value("vllm:prompt_tokens_total", engine=rank)
            for rank in ("0", "2", "3")
        }

    def ask(rank: str | None) -> httpx.Response:
        headers = {} if rank is None else {"X-data-parallel-rank": rank}
        body = {"prompt": [7, 8, 9], "max_tokens": 1}
        return server.post("/v1/completions", body, headers=headers)

    assert ask("1").status_code == 200
    assert counted() == {"0": 0, "2": 0, "3": 3}
    assert ask("0").status_code == 200
    assert counted() == {"0": 0, "2": 3, "3": 3}
    refused = ask("2")
    assert refused.status_code == 400
    message = "data_parallel_rank 2 is out of range [0, 2)."
    assert refused.json()["error"]["message"] == message
    for _ in range(6):
        ask(None)
    assert counted()["2"] > 3
    assert counted()["3"] > 3


def test_faults_can_be_set_at_run_time(start_server):
    server = start_server("--allow-faults")

    fault = {"kind": "http_error", "status": 503, "after": 1, "count": 1}
    assert server.post("/pd/faults", [fault]).json() == {"faults": ["http_error"]}

    codes = [server.complete("w001", max_tokens=1).status_code for _ in range(3)]
    assert codes == [200, 503, 200]
    assert server.post("/pd/faults", [{"kind": "nothing"}]).status_code == 400
    assert server.post("/pd/faults", []).json() == {"faults": []}


def test_faults_cannot_be_set_unless_allowed(server):
    assert server.post("/pd/faults", []).status_code == 404


def test_log_lines_are_vllms(start_server):
    server = start_server()
    server.complete("w001", max_tokens=1)
    server.get("/health")  # the line of an answer is there before the next one
    log = server.log.read_text()

    assert "INFO:     Application startup complete." in log
    assert re.search(
        r'INFO: +127\.0\.0\.1:\d+ - "POST /v1/completions HTTP/1\.1" 200 OK', log
    )
    assert re.search(r"\(EngineCore pid=\d+\) INFO \d\d-\d\d \d\d:\d\d:\d\d \[", log)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_in_the_middle_of_an_answer(start_server, number):
    server = start_server()
    body = {"prompt": PROMPT.text, "max_tokens": 3000, "stream": True, "temperature": 0}
    with (
        httpx.Client(trust_env=False) as client,
        client.stream("POST", f"{server.url}/v1/completions", json=body) as answer,
    ):
        next(answer.iter_lines())
        server.popen.send_signal(number)

        assert server.popen.wait(20) == 0
    assert "Traceback" not in server.log.read_text()


def serve(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "pytest_pd.reference", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("serve", "/no/such/model"), "holds no model"),
        (("serve",), "No model was named"),
        (("serve", "m", "--no-such-flag"), "unrecognized arguments: --no-such-flag"),
        (("serve", "m", "--headless", "--data-parallel-rank", "1"), "headless"),
        (("bake",), "serve fixtures/models/tiny"),
        ((), "serve fixtures/models/tiny"),
    ],
)
def test_mistakes_are_one_clear_message(words: tuple[str, ...], message: str):
    ended = serve(*words)

    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_taken_port_is_one_clear_message(server, tiny):
    port = server.url.rpartition(":")[2]

    ended = serve("serve", str(tiny), "--host", "127.0.0.1", "--port", port)

    assert ended.returncode == 2
    assert f"Cannot listen on 127.0.0.1:{port}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_headless_process_waits_for_its_end(tiny):
    words = ["serve", str(tiny), "-tp", "8", "--nnodes", "2", "--node-rank", "1"]
    argv = [sys.executable, "-m", "pytest_pd.reference", *words, "--headless"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as popen:
        line = next(line for line in popen.stderr if "Launching vLLM" in line)
        assert "headless multiproc executor" in line
        popen.terminate()

        assert popen.wait(20) == 0


def test_a_clock_jumps_in_answers_and_in_the_log(start_server):
    fault = '{"kind": "clock_step", "seconds": -86400, "after": 1}'
    server = start_server("--fault", fault)

    first, second = (
        server.complete("w001", max_tokens=1).json()["created"] for _ in range(2)
    )

    assert -86460 <= second - first <= -86340


def test_other_models_are_listed_than_are_served(start_server):
    server = start_server("--fault", '{"kind": "models_wrong", "after": 1}')

    listed = [server.get("/v1/models").json()["data"][0]["id"] for _ in range(2)]

    assert listed[1] == f"not-{listed[0]}"


def test_a_false_hit_takes_blocks_of_another_prompt(start_server):
    fault = '{"kind": "false_hit"}'
    server = start_server("--fault", fault, "--enable-prompt-tokens-details")
    one, other = (make_recall(n, length_tokens=100) for n in ("one", "other"))

    server.complete(one.text, max_tokens=4)
    answer = server.complete(other.text, max_tokens=4).json()

    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 96
    assert answer["choices"][0]["text"].split() != other.expected[:4]


def test_a_prompt_may_lose_its_first_tokens(start_server):
    fault = '{"kind": "prompt_cut", "tokens": 3, "count": 1}'
    server = start_server("--fault", fault)

    cut, whole = (
        server.complete(PROMPT.text, max_tokens=1).json()["usage"]["prompt_tokens"]
        for _ in range(2)
    )

    assert whole - cut == 3
