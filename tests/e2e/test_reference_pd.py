"""Prefill and decode engines as real processes, driven in two stages by the test.

Known truth, an aggregated engine, the shape's arithmetic and three witnesses (metrics
of both sides, bytes, logs) have to agree; each fault makes one of them disagree.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from pytest_pd.reference.prompts import RecallPrompt, block_edge_lengths, make_recall
from pytest_pd.reference.shape import (
    ModelShape,
    external_tokens,
    transferred_bytes,
    whole_blocks,
)
from tests.reference_process import TINY, ServerProcess, running_server

BLOCK = 16
SHAPE = ModelShape.from_config(json.loads((TINY / "config.json").read_text()))
ASK_REMOTE = {"do_remote_decode": True, "do_remote_prefill": False}
STYLES = ("pull", "shared_storage")
BY_SOURCE = "vllm:prompt_tokens_by_source_total"

LENGTHS = sorted(
    {
        *(n for blocks in (1, 2, 3, 8, 20) for n in block_edge_lengths(BLOCK, blocks)),
        *range(9, 200, 7),
        333,
        771,
        1000,
    }
)


@dataclass(frozen=True)
class Pair:
    """A prefill and a decode engine, and the way between them."""

    style: str
    prefill: ServerProcess
    decode: ServerProcess

    def answer(self, prompt: RecallPrompt, **settings: Any) -> dict[str, Any]:
        """Return the decode engine's answer after the prefill engine's stage."""
        body = {"prompt": prompt.text, "temperature": 0, "max_tokens": 1}
        body |= {"kv_transfer_params": ASK_REMOTE} if self.style == "pull" else {}
        first = self.prefill.post("/v1/completions", body)
        assert first.status_code == 200, first.text
        body |= {"max_tokens": len(prompt.expected)}
        body |= {"kv_transfer_params": first.json()["kv_transfer_params"]} | settings
        return self.decode.post("/v1/completions", body).json()

    def text(self, prompt: RecallPrompt) -> str:
        return self.answer(prompt)["choices"][0]["text"]


def kv_config(style: str, role: str, folder: Path) -> str:
    if style == "pull":
        return json.dumps({"kv_connector": "ReferencePullConnector", "kv_role": role})
    extra = {"shared_storage_path": str(folder)}
    config = {"kv_connector": "ExampleConnector", "kv_role": role}
    return json.dumps({**config, "kv_connector_extra_config": extra})


def start_pair(
    stack: ExitStack,
    folder: Path,
    style: str,
    *,
    prefill_faults: Sequence[Mapping[str, Any]] = (),
    decode_faults: Sequence[Mapping[str, Any]] = (),
    words: Sequence[str] = (),
) -> Pair:
    made = []
    for role, faults in (
        ("kv_producer", prefill_faults),
        ("kv_consumer", decode_faults),
    ):
        argv = ["--kv-transfer-config", kv_config(style, role, folder / "kv"), *words]
        for fault in faults:
            argv += ["--fault", json.dumps(fault)]
        log = folder / f"{role}.log"
        made.append(stack.enter_context(running_server(log, *argv)))
    return Pair(style, *made)


@pytest.fixture(scope="module", params=STYLES)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp(request.param)
        yield start_pair(stack, folder, request.param)


@pytest.fixture(scope="module")
def aggregated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("aggregated") / "engine.log"
    with running_server(log) as server:
        yield server


@pytest.mark.parametrize("length", LENGTHS)
def test_answers_equal_the_aggregated_ones(
    pair: Pair, aggregated: ServerProcess, length: int
):
    prompt = make_recall(f"equal-{length}", chain=20, length_tokens=length)

    alone = aggregated.complete(prompt.text, max_tokens=20).json()["choices"][0]

    assert pair.text(prompt) == alone["text"] == prompt.expected_text


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sampled_answers_equal_the_aggregated_ones(
    pair: Pair, aggregated: ServerProcess, seed: int
):
    prompt = make_recall(f"sampled-{seed}", chain=20)
    settings = {"temperature": 3.0, "seed": seed}

    alone = aggregated.complete(prompt.text, max_tokens=20, **settings).json()
    apart = pair.answer(prompt, **settings)

    assert apart["choices"][0]["text"] == alone["choices"][0]["text"]
    assert apart["choices"][0]["text"] != prompt.expected_text


@pytest.mark.parametrize("length", [9, 16, 17, 100, 183, 320])
def test_both_sides_count_what_the_shape_predicts(pair: Pair, length: int):
    prompt = make_recall(f"counted-{length}", length_tokens=length)
    prefill, decode = pair.prefill, pair.decode

    def counters() -> dict[str, float]:
        return {
            "prefill computed": prefill.value(BY_SOURCE, source="local_compute"),
            "prefill external": prefill.value(BY_SOURCE, source="external_kv_transfer"),
            "prefill generated": prefill.value("vllm:generation_tokens_total"),
            "decode computed": decode.value(BY_SOURCE, source="local_compute"),
            "decode external": decode.value(BY_SOURCE, source="external_kv_transfer"),
            "decode hits": decode.value("vllm:external_prefix_cache_hits_total"),
            "decode generated": decode.value("vllm:generation_tokens_total"),
            "bytes": decode.value("vllm:nixl_bytes_transferred_sum"),
            "transfers": decode.value("vllm:nixl_bytes_transferred_count"),
        }

    before = counters()
    pair.answer(prompt)
    after = counters()

    external = external_tokens(pair.style, length, BLOCK)
    pulls = pair.style == "pull"
    assert {name: after[name] - before[name] for name in after} == {
        "prefill computed": length,
        "prefill external": 0,
        "prefill generated": 1,
        "decode computed": length - external,
        "decode external": external,
        "decode hits": external,
        "decode generated": 16,
        "bytes": transferred_bytes(SHAPE, length, BLOCK) if pulls else 0,
        "transfers": 1 if pulls else 0,
    }


def test_a_repeat_hits_and_another_prompt_does_not(pair: Pair):
    prompt = make_recall("hits", length_tokens=100)

    def hits() -> float:
        return pair.decode.value("vllm:prefix_cache_hits_total")

    before = hits()
    pair.answer(prompt)
    cold = hits()
    pair.answer(prompt)
    warm = hits()
    pair.answer(make_recall("other", length_tokens=100))

    assert (cold - before, warm - cold, hits() - warm) == (0, 96, 0)


def test_the_consumer_logs_what_it_took_from_files(tmp_path: Path):
    with ExitStack() as stack:
        pair = start_pair(stack, tmp_path, "shared_storage")
        pair.answer(make_recall("logged", length_tokens=100))
        log = pair.decode.log.read_text()

    assert log.count("External Cache Hit!") == 1
    assert "Inject KV cache of 96 tokens to the paged memory" in log


def test_files_hold_the_bytes_of_the_shape(tmp_path: Path):
    with ExitStack() as stack:
        pair = start_pair(stack, tmp_path, "shared_storage")
        pair.answer(make_recall("sized", length_tokens=100))

    files = list((tmp_path / "kv").glob("*/*.safetensors"))
    kept = whole_blocks(100, BLOCK) * SHAPE.bytes_per_token
    headers = sum(path.stat().st_size for path in files) - kept
    assert len(files) == SHAPE.layers
    assert 0 < headers < 200 * len(files)


def test_streams_after_a_hand_over_are_complete(pair: Pair):
    prompt = make_recall("streamed", chain=20)
    body = {"prompt": prompt.text, "temperature": 0, "max_tokens": 1}
    body |= {"kv_transfer_params": ASK_REMOTE} if pair.style == "pull" else {}
    handed = pair.prefill.post("/v1/completions", body).json()["kv_transfer_params"]
    options = {"stream": True, "stream_options": {"include_usage": True}}
    body |= {"kv_transfer_params": handed, "max_tokens": 20} | options

    lines = pair.decode.post("/v1/completions", body).text.split("\n\n")

    assert lines[-2:] == ["data: [DONE]", ""]
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    texts = [event["choices"][0]["text"] for event in events[:-1]]
    assert "".join(texts) == prompt.expected_text
    assert len(texts) == 20
    assert events[-1]["usage"]["completion_tokens"] == 20


DAMAGE = [
    pytest.param({"kind": "kv_bit_flip"}, id="bit flip"),
    pytest.param({"kind": "kv_swap"}, id="swap"),
    pytest.param({"kind": "kv_stale"}, id="stale"),
]


@pytest.mark.parametrize(
    ("style", "side"),
    [("pull", "decode_faults"), ("shared_storage", "prefill_faults")],
)
@pytest.mark.parametrize("fault", DAMAGE)
def test_damaged_kv_is_wrong_text_from_its_turn_on(
    tmp_path: Path, style: str, side: str, fault: Mapping[str, Any]
):
    prompts = [make_recall(f"damage-{i}", chain=60) for i in range(4)]
    with ExitStack() as stack:
        late = {side: [{**fault, "after": 2}]}
        pair = start_pair(stack, tmp_path, style, **late)
        right = [pair.text(prompt) == prompt.expected_text for prompt in prompts]

    assert right == [True, True, False, False]


@pytest.mark.parametrize("style", STYLES)
def test_a_silent_recompute_shows_in_the_metrics(tmp_path: Path, style: str):
    prompt = make_recall("silent")
    with ExitStack() as stack:
        fault = {"kind": "silent_recompute"}
        pair = start_pair(stack, tmp_path, style, decode_faults=[fault])
        text = pair.text(prompt)
        computed = pair.decode.value(BY_SOURCE, source="local_compute")
        external = pair.decode.value(BY_SOURCE, source="external_kv_transfer")

    assert text == prompt.expected_text
    assert (computed, external) == (183, 0)


def test_a_lying_recompute_shows_at_the_producer(tmp_path: Path):
    prompt = make_recall("lying")
    with ExitStack() as stack:
        fault = {"kind": "silent_recompute", "metrics": "lying"}
        pair = start_pair(stack, tmp_path, "pull", decode_faults=[fault])
        pair.text(prompt)
        external = pair.decode.value(BY_SOURCE, source="external_kv_transfer")
        kept = pair.prefill.value("vllm:kv_cache_usage_perc")

    assert external == 183
    assert kept > 0


def test_a_producer_that_dies_is_an_error_not_a_wait(tmp_path: Path):
    prompt = make_recall("dies")
    with ExitStack() as stack:
        pair = start_pair(stack, tmp_path, "pull")
        body = {"prompt": prompt.text, "max_tokens": 1}
        body |= {"kv_transfer_params": ASK_REMOTE}
        handed = pair.prefill.post("/v1/completions", body).json()
        pair.prefill.popen.kill()
        pair.prefill.popen.wait()
        body |= {"kv_transfer_params": handed["kv_transfer_params"]}

        answer = pair.decode.post("/v1/completions", body)

    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "InternalServerError"


STREAM_FAULTS = {
    "http_error": lambda r: r.status_code == 500,
    "stream_error": lambda r: '"error"' in r.text and "[DONE]" not in r.text,
    "no_done": lambda r: "[DONE]" not in r.text,
    "token_twice": lambda r: r.text.count('"text"') == 9,
    "token_missing": lambda r: r.text.count('"text"') == 7,
    "first_chunk_empty": lambda r: '"text":""' in r.text.partition("\n")[0],
    "tokens_bundled": lambda r: r.text.count('"text"') == 2,
    "usage_wrong": lambda r: '"completion_tokens":9' in r.text,
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose faults each test sets for itself."""
    log = tmp_path_factory.mktemp("faulty") / "engine.log"
    with running_server(log, "--allow-faults") as server:
        yield server


@pytest.mark.parametrize("kind", sorted(STREAM_FAULTS))
def test_faults_of_the_answer_are_seen_by_the_client(faulty: ServerProcess, kind: str):
    prompt = make_recall("client", chain=8)
    body = {"prompt": prompt.text, "max_tokens": 8, "temperature": 0, "stream": True}
    body |= {"stream_options": {"include_usage": True}}
    faulty.post("/pd/faults", [{"kind": kind, "after": 1}])
    clean = faulty.post("/v1/completions", body)
    struck = faulty.post("/v1/completions", body)

    assert not STREAM_FAULTS[kind](clean)
    assert STREAM_FAULTS[kind](struck)


@pytest.mark.parametrize("kind", ["crash", "stream_crash"])
def test_a_crash_ends_the_process_with_its_code(tmp_path: Path, kind: str):
    body = {"prompt": make_recall(0).text, "max_tokens": 8, "stream": True}
    fault = json.dumps({"kind": kind, "code": 7})
    with running_server(tmp_path / "log", "--fault", fault) as server:
        with pytest.raises(httpx.TransportError):
            server.post("/v1/completions", body)

        assert server.popen.wait(20) == 7


def test_a_cut_stream_is_a_broken_connection(faulty: ServerProcess):
    body = {"prompt": make_recall(0).text, "max_tokens": 8, "stream": True}
    faulty.post("/pd/faults", [{"kind": "stream_cut"}])

    with pytest.raises(httpx.TransportError):
        faulty.post("/v1/completions", body)

    assert faulty.get("/health").status_code == 200


def test_ready_may_be_a_lie(tmp_path: Path):
    fault = '{"kind":"ready_lie","seconds":600}'
    with running_server(tmp_path / "log", "--fault", fault) as server:
        assert server.get("/health").status_code == 200
        with pytest.raises(httpx.ReadTimeout):
            server.post("/v1/completions", {"prompt": "w001"}, timeout=0.5)


def test_a_frozen_page_says_the_same_for_ever(faulty: ServerProcess):
    faulty.post("/pd/faults", [{"kind": "metrics_frozen", "after": 1}])
    before = faulty.get("/metrics").text
    faulty.complete("w001", max_tokens=4)

    assert faulty.get("/metrics").text == before
