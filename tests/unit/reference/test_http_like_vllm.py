"""Recorded requests to a real vLLM 0.32 are sent again: the answers are the same.

`samples/vllm_http.json` holds what vLLM (CPU, float32, blocks of 32, the tiny model,
``--enable-prompt-tokens-details``) was asked and said.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

SAMPLES = json.loads((Path(__file__).parent / "samples/vllm_http.json").read_text())
BY_NAME = {sample["name"]: sample for sample in SAMPLES}

DRAWN = {"id", "created", "system_fingerprint", "root", "permission"}
"""Keys whose values differ from run to run, or from engine to engine."""

HISTORY = {"cached_tokens", "created_cache_tokens"}
"""Keys whose values depend on what was asked before."""

DIFFERENT = {
    "chat": "our tiny model has a template with <s>: one token more",
    "chat stream": "the same",
    "wrong type": "pydantic tells one error per member of a union, we tell one",
    "prefill stage of NIXL": "needs a connector; see the test of its own",
}


def shape_of(value: Any) -> Any:
    """Return keys and types of a JSON value."""
    if isinstance(value, dict):
        return {key: shape_of(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape_of(inner) for inner in value]
    return "number" if isinstance(value, int | float) else type(value).__name__


def same(ours: Any, theirs: Any, where: str = "") -> None:
    """Compare two JSON values, numbers nearly, drawn ones by type only."""
    key = where.rpartition(".")[2]
    if key in HISTORY:
        return
    if where.rpartition("[")[0].endswith("top_logprobs") and theirs:
        # Behind the best there are equals, and rounding orders them.
        assert len(ours) == len(theirs), where
        best = next(iter(theirs))
        same(ours[best], theirs[best], where.replace("top_logprobs", "best"))
    elif key in DRAWN:
        assert type(ours) is type(theirs), where
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), where
        for inner in theirs:
            same(ours[inner], theirs[inner], f"{where}.{inner}")
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs), where
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            same(one, other, f"{where}[{index}]")
    elif isinstance(theirs, float) and isinstance(ours, float):
        assert math.isclose(ours, theirs, rel_tol=2e-3, abs_tol=2e-5), where
    else:
        assert ours == theirs, where


def events(text: str) -> list[Any]:
    """Return the events of a stream, ``[DONE]`` as text."""
    found = []
    for line in text.splitlines():
        if line:
            assert line.startswith("data: ")
            data = line.removeprefix("data: ")
            found.append(data if data == "[DONE]" else json.loads(data))
    return found


def replay(server, sample: dict[str, Any]):
    if sample["request"] is None:
        return server.get(sample["path"])
    if isinstance(sample["request"], str):
        return server.post(sample["path"], content=sample["request"])
    return server.post(sample["path"], sample["request"])


REPLAYED = [name for name in BY_NAME if name not in DIFFERENT]
STREAMS = [name for name in REPLAYED if "stream" in name]
BODIES = [
    name
    for name in REPLAYED
    if name not in STREAMS and BY_NAME[name]["content_type"] == "application/json"
]


@pytest.mark.parametrize("name", REPLAYED)
def test_status_and_type_are_vllms(server, name: str):
    response = replay(server, BY_NAME[name])

    assert response.status_code == BY_NAME[name]["status"]
    if (kind := BY_NAME[name]["content_type"]) is not None:
        assert (
            response.headers["content-type"].partition(";")[0] == kind.partition(";")[0]
        )


@pytest.mark.parametrize("name", BODIES)
def test_bodies_are_vllms(server, name: str):
    response = replay(server, BY_NAME[name])

    same(response.json(), json.loads(BY_NAME[name]["response"]))


@pytest.mark.parametrize("name", STREAMS)
def test_streams_are_vllms(server, name: str):
    ours = events(replay(server, BY_NAME[name]).text)
    theirs = events(BY_NAME[name]["response"])

    assert ours[-1] == theirs[-1] == "[DONE]"
    same(ours[:-2], theirs[:-2])
    assert ours[-2]["usage"]["completion_tokens"] == 4
    assert ours[-2]["choices"] == []


def test_a_chat_has_the_keys_of_vllms(server):
    sample = BY_NAME["chat"]
    ours, theirs = replay(server, sample).json(), json.loads(sample["response"])

    assert ours["choices"] == theirs["choices"]
    assert ours.keys() == theirs.keys()
    assert ours["usage"]["prompt_tokens"] == theirs["usage"]["prompt_tokens"] + 1


def test_a_chat_stream_has_the_chunks_of_vllms(server):
    sample = BY_NAME["chat stream"]
    ours, theirs = events(replay(server, sample).text), events(sample["response"])

    assert [c.get("choices") for c in ours[:-1]] == [c["choices"] for c in theirs[:-1]]
    assert [c.keys() for c in ours[:-2]] == [c.keys() for c in theirs[:-2]]


def test_a_wrong_type_is_refused_in_vllms_shape(server):
    sample = BY_NAME["wrong type"]
    response = replay(server, sample)

    theirs = json.loads(sample["response"])["error"]
    ours = response.json()["error"]
    assert response.status_code == 400
    assert {**ours, "message": ""} == {**theirs, "message": ""}
    assert "Input should be a valid list" in ours["message"]


def test_a_prefill_stage_answers_with_vllms_parameters(start_server):
    config = {"kv_connector": "ReferencePullConnector", "kv_role": "kv_producer"}
    words = (
        "--served-model-name tiny --dtype float32 --block-size 32 --kv-transfer-config"
    )
    server = start_server(*words.split(), json.dumps(config))
    sample = BY_NAME["prefill stage of NIXL"]

    ours = replay(server, sample).json()["kv_transfer_params"]

    theirs = json.loads(sample["response"])["kv_transfer_params"]
    assert ours.keys() == theirs.keys()
    assert shape_of(ours) == shape_of(theirs)
    same_keys = (
        "do_remote_prefill",
        "do_remote_decode",
        "remote_num_tokens",
        "transfer_mode",
    )
    assert [ours[key] for key in same_keys] == [theirs[key] for key in same_keys]


@pytest.mark.parametrize("name", sorted(DIFFERENT))
def test_every_difference_is_of_a_recorded_request(name: str):
    assert name in BY_NAME
