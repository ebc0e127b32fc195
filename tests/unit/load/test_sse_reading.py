"""What the events of an answer say, however the server spells them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_pd.load.decode import Reads, decode_stream
from pytest_pd.load.http_message import parse_head
from pytest_pd.load.record import Event, TokenSource
from pytest_pd.load.sse import AnswerReader, Template, event_data, next_event


def read(*payloads: bytes):
    return AnswerReader().read(b"".join(payloads))


def chat(delta: dict, finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": "c7", "choices": [choice], **more}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def test_crlf_events_say_the_same(wire):
    crlf = [wire.text("a", newline="\r\n"), wire.text("b", "stop", newline="\r\n")]

    answer = read(*crlf, b"data: [DONE]\r\n\r\n")

    assert bytes(answer.text) == b"ab"
    assert answer.is_done
    assert answer.finish_reason == "stop"


def test_bare_carriage_returns_end_lines_too():
    assert next_event(b"data: a\r\rdata: b\r\r", 0) == (b"data: a", 9)


def test_crlf_alone_does_not_end_an_event():
    assert next_event(b"event: x\r\ndata: a\r\n", 0) is None


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: a", b"a"),
        (b"data:a", b"a"),
        (b"data:  a", b" a"),
        (b"event: x\ndata: a\nid: 3", b"a"),
        (b"data: a\ndata: b", b"a\nb"),
        (b": comment", None),
        (b"\xef\xbb\xbfdata: a", b"a"),
    ],
)
def test_data_is_taken_as_the_standard_says(event, data):
    assert event_data(event) == data


def test_role_event_is_no_output():
    answer = read(
        chat({"role": "assistant", "content": ""}), chat({"content": "a"}, "stop")
    )

    assert [f & Event.CONTENT for f in answer.flags] == [0, Event.CONTENT]


def test_finish_without_content_is_no_output():
    answer = read(chat({"content": "a"}), chat({}, "length"))

    assert [int(f) for f in answer.flags] == [Event.CONTENT, Event.FINISH]


def test_reasoning_is_output_and_marked():
    answer = read(chat({"reasoning_content": "hm"}), chat({"content": "a"}, "stop"))

    assert answer.flags[0] == Event.CONTENT | Event.REASONING
    assert bytes(answer.text) == b"hma"


def test_tool_calls_are_output():
    answer = read(chat({"tool_calls": [{"index": 0}]}), chat({}, "tool_calls"))

    assert answer.flags[0] & Event.CONTENT
    assert answer.finish_reason == "tool_calls"


def test_usage_beats_the_number_of_events(wire):
    """A parser that hides tokens sends fewer events than the engine made tokens."""
    answer = read(wire.text("a"), wire.text("b", "stop"), wire.usage(9))

    assert answer.output_tokens == 9
    assert answer.token_source is TokenSource.USAGE


def test_without_usage_events_are_counted_and_that_is_said(wire):
    answer = read(wire.text("a"), wire.text("b", "stop"))

    assert answer.output_tokens == 2
    assert answer.token_source is TokenSource.EVENTS


def test_token_ids_tell_how_many_an_event_brought():
    answer = read(chat({"content": "ab", "token_ids": [1, 2]}), chat({}, "stop"))

    assert answer.tokens[0] == 2
    assert answer.token_source is TokenSource.TOKEN_IDS


def test_continuous_usage_tells_tokens_per_event():
    first = chat({"content": "ab"}, usage={"completion_tokens": 3})
    second = chat({"content": "c"}, "stop", usage={"completion_tokens": 4})

    assert read(first, second).tokens.tolist() == [3, 1]


def test_error_event_is_an_error():
    answer = read(b'data: {"error": {"message": "out of memory", "code": 500}}\n\n')

    assert answer.error == "out of memory"


def test_event_that_is_no_json_is_an_error():
    assert "not JSON" in read(b"data: <html>\n\n").error


@given(st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=30))
def test_any_text_comes_back_however_it_is_escaped(texts):
    """The short cut for like events gives what parsing each as JSON gives."""
    for ascii_only in (True, False):
        events = []
        for text in texts:
            choice = {"index": 0, "text": text, "finish_reason": None}
            body = json.dumps({"choices": [choice]}, ensure_ascii=ascii_only)
            events.append(b"data: " + body.encode("utf-8", "surrogatepass") + b"\n\n")
        answer = read(*events)
        assert answer.text.decode("utf-8", "surrogatepass") == "".join(texts)
        assert len(answer.flags) == len(texts)
        assert answer.ends.tolist()[-1] == sum(map(len, events))


def test_template_is_not_learned_from_an_ambiguous_event():
    template = Template()

    template.learn(b'{"model":"a","text":"a"}', "a")

    assert template.run(b'data: {"model":"a","text":"a"}\n\n', 0) == []


def test_a_foreign_event_ends_a_run_and_is_read(wire):
    odd = b'data: {"id":"other","choices":[{"index":0,"text":"Z"}]}\n\n'

    answer = read(wire.text("a"), wire.text("b"), odd, wire.text("c"), wire.text("d"))

    assert bytes(answer.text) == b"abZcd"


@given(st.data())
def test_stamps_are_of_the_read_that_ends_the_event(data):
    """Against a plain reading of the rule, for any way of cutting the bytes."""
    words = [b'data: {"choices":[{"text":"%d"}]}\n\n' % k for k in range(5)]
    sizes = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    chunks, rest = [], list(words)
    for size in [*sizes, 5]:
        piece, rest = b"".join(rest[:size]), rest[size:]
        if piece:
            chunks.append(b"%x\r\n%b\r\n" % (len(piece), piece))
    raw = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(chunks) + b"0\r\n\r\n"
    )
    cuts = sorted(data.draw(st.sets(st.integers(1, len(raw) - 1), max_size=8)))
    reads = Reads()
    for k, end in enumerate([*cuts, len(raw)]):
        reads.add(1000 * (k + 1), 1000 * (k + 1) + 5, end)

    decoded = decode_stream(bytearray(raw), parse_head(raw), reads)

    assert decoded.is_whole
    ends = [*cuts, len(raw)]
    for word, stamp in zip(words, decoded.block["stamp_ns"], strict=True):
        last = raw.index(word) + len(word)
        read_number = next(k for k, end in enumerate(ends) if end >= last)
        assert stamp == 1000 * (read_number + 1)


def test_events_of_one_read_are_marked_as_sharing_it(wire):
    body = wire.chunk(wire.text("a")) + wire.chunk(wire.text("b"))
    raw = wire.head + body + wire.chunk(wire.text("c", "stop")) + wire.end
    reads = Reads()
    reads.add(10, 11, len(wire.head + body))
    reads.add(20, 21, len(raw))

    decoded = decode_stream(bytearray(raw), parse_head(raw), reads)

    shared = [bool(f & Event.COALESCED) for f in decoded.block["flags"]]
    assert shared == [True, True, False]
    assert decoded.coalesced == 2
