"""What each stage is sent, as pure functions."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_pd.proxy.ask import (
    PULL_PARAMS,
    Transfer,
    decode_body,
    handed_params,
    parse_ask,
    prefill_body,
    routing_key,
    single_stage_reason,
)

PARAMS = {"remote_block_ids": [[1, 2]], "do_remote_prefill": True}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def ask(**fields):
    return parse_ask(json.dumps(fields).encode())


@pytest.mark.parametrize("raw", [b"", b"{not json", b"[1]", b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_left_to_the_engine(raw):
    found = parse_ask(raw)

    assert single_stage_reason(found, Transfer.AUTO) == "unreadable_body"
    assert decode_body(found, PARAMS) == raw


@pytest.mark.parametrize(
    ("fields", "transfer", "reason"),
    [
        ({"prompt": "x"}, Transfer.PULL, ""),
        ({"prompt": "x", "echo": True}, Transfer.PULL, ""),
        ({"prompt": "x", "logprobs": 1}, Transfer.PULL, ""),
        (
            {"prompt": "x", "echo": True, "logprobs": 0},
            Transfer.PULL,
            "prompt_logprobs",
        ),
        ({"prompt": "x", "prompt_logprobs": 0}, Transfer.AUTO, "prompt_logprobs"),
        ({"prompt": ["x", "y"]}, Transfer.PULL, "several_prompts"),
        ({"prompt": [[1], [2]]}, Transfer.PULL, "several_prompts"),
        ({"prompt": ["x", "y"]}, Transfer.SHARED_STORAGE, ""),
        ({"prompt": [1, 2, 3]}, Transfer.PULL, ""),
        ({"prompt": ["x"]}, Transfer.PULL, ""),
        ({"prompt": "x"}, Transfer.NONE, "no_prefill"),
    ],
)
def test_reasons_for_a_single_stage(fields, transfer, reason):
    assert single_stage_reason(ask(**fields), transfer) == reason


@pytest.mark.parametrize(
    ("transfer", "expected"),
    [
        (Transfer.SHARED_STORAGE, None),
        (Transfer.PULL, dict(PULL_PARAMS)),
        (Transfer.AUTO, dict(PULL_PARAMS)),
    ],
)
def test_only_pull_asks_for_parameters(transfer, expected):
    body = json.loads(prefill_body({"prompt": "x"}, transfer))

    assert body.get("kv_transfer_params") == expected
    assert body["max_tokens"] == 1
    assert body["stream"] is False


def test_several_prompts_ask_for_no_parameters_under_auto():
    body = json.loads(prefill_body({"prompt": ["x", "y"]}, Transfer.AUTO))

    assert "kv_transfer_params" not in body


def test_min_tokens_never_exceeds_the_one_token():
    body = prefill_body({"prompt": "x", "min_tokens": 9}, Transfer.SHARED_STORAGE)

    assert json.loads(body)["min_tokens"] == 1


def test_what_only_shapes_the_answer_stays_away_from_prefill():
    ornaments = {
        "n": 3, "best_of": 3, "echo": True, "logprobs": 2, "stop": ["a"],
        "stream_options": {"include_usage": True}, "top_logprobs": 1,
    }  # fmt: skip
    body = json.loads(prefill_body({"prompt": "x", **ornaments}, Transfer.PULL))

    assert not body.keys() & ornaments.keys()


def test_the_prompt_of_prefill_is_the_prompt_of_decode():
    fields = {
        "messages": [{"role": "user", "content": "é\ud83d"}],
        "tools": [{"type": "function"}],
        "chat_template_kwargs": {"x": 1},
    }
    body = json.loads(prefill_body(fields, Transfer.PULL))

    assert {key: body[key] for key in fields} == fields


@settings(deadline=None)  # the machine may be busy
@given(st.dictionaries(st.text(), JSON), st.sampled_from(["", " ", "\n"]))
def test_parameters_are_added_and_nothing_else_changes(fields, space):
    raw = (space + json.dumps(fields) + space).encode()

    body = json.loads(decode_body(parse_ask(raw), PARAMS))

    assert body == fields | {"kv_transfer_params": PARAMS}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_every_encoding_of_json_survives(encoding):
    raw = json.dumps({"prompt": "é"}, ensure_ascii=False).encode(encoding)

    body = json.loads(decode_body(parse_ask(raw), PARAMS))

    assert body == {"prompt": "é", "kv_transfer_params": PARAMS}


def test_without_parameters_the_bytes_are_those_of_the_client():
    raw = b' {"prompt" :  "x" }\n'

    assert decode_body(parse_ask(raw), None) is raw


def test_parameters_of_the_client_are_replaced_not_doubled():
    body = decode_body(ask(prompt="x", kv_transfer_params={"a": 1}), PARAMS)

    assert body.count(b"kv_transfer_params") == 1
    assert json.loads(body)["kv_transfer_params"] == PARAMS


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (json.dumps({"kv_transfer_params": PARAMS}).encode(), PARAMS),
        (b'{"kv_transfer_params": null}', None),
        (b"{}", None),
        (b"[]", None),
        (b"oops", None),
    ],
)
def test_parameters_of_an_answer(answer, expected):
    assert handed_params(answer) == expected


def test_the_session_comes_before_the_prompt():
    assert routing_key("s", {"prompt": "a"}) == routing_key("s", {"prompt": "b"})
    assert routing_key(None, {"prompt": "a"}) != routing_key(None, {"prompt": "b"})


def test_keys_of_token_ids_depend_on_the_ids():
    one, two = [routing_key(None, {"prompt": [n, 2, 3, 4]}) for n in (1, 9)]

    assert one != two


def test_long_prompts_share_a_key_by_their_start():
    start = list(range(64))

    assert routing_key(None, {"prompt": [*start, 1]}) == routing_key(
        None, {"prompt": [*start, 2]}
    )


def test_keys_of_chats_depend_on_what_was_said():
    def key(text):
        return routing_key(None, {"messages": [{"role": "user", "content": text}]})

    assert key("a") != key("b")


@settings(deadline=None)  # the machine may be busy
@given(st.dictionaries(st.sampled_from(["prompt", "messages"]), JSON))
def test_a_key_is_found_for_whatever_comes(fields):
    assert isinstance(routing_key(None, fields), bytes)
