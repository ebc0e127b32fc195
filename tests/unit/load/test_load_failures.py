"""Every way in which a request can fail has its own name, and none looks green."""

from __future__ import annotations

import resource
import socket

import pytest

from pytest_pd.errors import InfrastructureLost
from pytest_pd.load.host import many_files
from pytest_pd.load.point import LoadPoint
from pytest_pd.load.prompts import Prompt
from pytest_pd.load.run import run_load
from pytest_pd.load.target import Target

ENGINES = pytest.mark.parametrize("engine", ["kernel", "httpx"])


def answers(wire):
    good, done = wire.text("a", "stop"), wire.done
    json_head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n"
    return {
        "status": [
            json_head % b"503 Busy" + b'Content-Length: 20\r\n\r\n{"error":"no slots"}'
        ],
        "error event": wire.answer(wire.text("a"), b'data: {"error":"boom"}\n\n', done),
        "cut off": [wire.head, wire.chunk(wire.text("a")), None],
        "cut inside a chunk": [wire.head, b"ff\r\ndata: half", None],
        "no finish": wire.answer(wire.text("a")),
        "no output": wire.answer(wire.usage(0), done),
        "no text": wire.answer(
            wire.text(""), wire.text("", "stop"), wire.usage(2), done
        ),
        "empty": wire.answer(done),
        "not http": [b"220 smtp.example ready\r\n", None],
        "json, not a stream": [json_head % b"200 OK" + b"Content-Length: 2\r\n\r\n{}"],
        "bad chunk": [wire.head, b"xyz\r\nabc\r\n", None],
        "silence": [wire.head, 5.0],
        "closed at once": [None],
        "good": wire.answer(good, done),
    }


@ENGINES
@pytest.mark.parametrize(
    ("kind", "outcome", "why"),
    [
        ("status", "http_status", "503"),
        ("error event", "sse_error", "boom"),
        ("cut off", "disconnect", ""),
        ("cut inside a chunk", "disconnect", ""),
        ("no finish", "disconnect", "neither a finish reason nor"),
        ("no output", "no_output", "not one output token"),
        ("no text", "no_output", "no event with text"),
        ("empty", "disconnect", ""),
        ("json, not a stream", "malformed", "no event stream"),
        ("silence", "timeout", "in time|within"),
        ("closed at once", "disconnect", ""),
    ],
)
def test_failure_has_its_name(serve, wire, load_with, engine, kind, outcome, why):
    import re

    result = load_with(engine, serve(answers(wire)[kind]).url, timeout_s=0.5)

    if kind == "empty":
        assert not result.counts().get("ok")
    else:
        assert result.counts() == {outcome: 1}
    assert re.search(why, next(iter(result.errors.values())))
    assert "none of 1 requests succeeded" in result.reasons[0]


@pytest.mark.parametrize("kind", ["not http", "bad chunk"])
def test_what_is_no_http_is_malformed(serve, wire, load, kind):
    result = load(serve(answers(wire)[kind]).url)

    assert result.counts() == {"malformed": 1}


@ENGINES
def test_a_failure_does_not_end_the_run(serve, wire, load_with, engine):
    made = answers(wire)
    server = serve(made["cut off"], made["status"], made["good"], made["good"])

    result = load_with(engine, server.url, requests=4)

    assert result.counts() == {"ok": 2, "disconnect": 1, "http_status": 1}
    assert result.is_valid


def test_what_arrived_before_the_cut_is_kept(serve, wire, load):
    result = load(serve(answers(wire)["cut off"]).url)

    (trace,) = result.traces()
    assert trace.text == "a"
    assert len(trace.stamp_ns) == 1
    assert not trace.is_ok


def test_a_request_on_a_connection_that_died_idle_is_sent_again(serve, wire, load):
    """The server closes after each answer without saying so: a keep-alive race."""
    good = answers(wire)["good"]
    server = serve([*good, None])

    result = load(server.url, requests=4)

    assert result.counts() == {"ok": 4}
    assert result.instrument.connections_opened == 4


def test_a_request_that_a_server_dropped_after_a_while_failed(serve, wire, load):
    """Sent again, it would look as if nothing had happened, and fast."""
    good = answers(wire)["good"]
    server = serve(good, [1.2, None], good)

    result = load(server.url, requests=3)

    assert result.counts() == {"ok": 2, "disconnect": 1}


def test_missing_done_is_fine_when_the_answer_finished(serve, wire, load):
    result = load(serve(wire.answer(wire.text("a", "stop"))).url)

    assert result.counts() == {"ok": 1}
    assert not result.rows()["done_marker"].any()


def test_body_framed_by_closing_is_read(serve, wire, load):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    result = load(serve([head, wire.text("a", "stop"), wire.done, None]).url)

    assert result.counts() == {"ok": 1}


def test_body_of_known_length_is_read(serve, wire, load):
    body = wire.text("a", "stop") + wire.done
    head = wire.head.replace(b"Transfer-Encoding: chunked", b"Content-Length: %d")
    server = serve([head % len(body), body])

    result = load(server.url, requests=3)

    assert result.counts() == {"ok": 3}
    assert server.accepted == 1


def test_crlf_stream_ends_where_it_ends(serve, wire, load):
    """Each of its events ends in bytes that look like the end of the body."""
    texts = [wire.text(w, newline="\r\n") for w in "abc"]
    last = wire.text("d", "stop", newline="\r\n")
    result = load(serve(wire.answer(*texts, last, b"0\r\n\r\n")).url, requests=2)

    assert result.counts() == {"ok": 2}
    assert next(result.traces()).text == "abcd"


def test_large_request_and_large_events_pass(serve, wire, truth):
    from pytest_pd.load.point import LoadPoint
    from pytest_pd.load.prompts import Prompt
    from pytest_pd.load.run import run_load
    from pytest_pd.load.target import Target

    word = "x" * 300_000
    server = serve(wire.answer(wire.text(word), wire.text("y", "stop"), wire.done))
    prompt = Prompt(text="p" * 3_000_000)

    point = LoadPoint(requests=1, min_waves=1)
    result = run_load(Target(url=server.url), point, [prompt])

    assert result.counts() == {"ok": 1}
    assert next(result.traces()).text == word + "y"
    assert len(server.requests[0]) > 3_000_000


def test_unknown_host_is_told_as_such(load):
    with pytest.raises(InfrastructureLost, match="cannot be reached"):
        load("http://no-such-host.invalid:1")


@ENGINES
def test_too_many_open_files_are_failed_requests_with_their_reason(
    truth, load_with, engine, monkeypatch
):
    def refuse(*_, **__):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("pytest_pd.load.pool.Connection", refuse)
    monkeypatch.setattr("pytest_pd.load.transport.Connection", refuse)

    result = load_with(engine, truth.url, requests=2)

    assert result.counts() == {"connect": 2}
    assert all("Too many open files" in why for why in result.errors.values())


def test_as_many_files_as_may_be_are_allowed_while_load_runs():
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        with many_files():
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(soft, 512)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@ENGINES
def test_address_of_a_name_that_refuses_is_passed_over(
    truth, load_with, engine, monkeypatch
):
    """As localhost, whose first address is often not the server's."""
    kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")

    def two(host, port, **_):
        return [(*kind, (address, port)) for address in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", two)

    result = load_with(engine, truth.url.replace("127.0.0.1", "named"), requests=2)

    assert result.counts() == {"ok": 2}


def asked_for(url, tokens, shards=1, **target):
    """Load a server with four prompts that ask for so many tokens."""
    prompts = [Prompt(text=f"a {k}", output_tokens=tokens) for k in range(4)]
    point = LoadPoint(concurrency=2, requests=4, min_waves=1)
    return run_load(Target(url=url, **target), point, prompts, shards=shards)


def cut_to(wire, *last):
    """Return the script of a whole answer of one token."""
    return wire.answer(wire.text("a", "length"), *last, wire.done)


@pytest.mark.parametrize("shards", [1, 2])
def test_whole_answers_that_were_cut_make_the_run_invalid(serve, wire, shards):
    server = serve(cut_to(wire, wire.usage(1)))

    result = asked_for(server.url, 150, shards)

    assert result.counts() == {"ok": 4}
    (reason,) = result.reasons
    assert "4 of 4 answers are shorter than asked, with 4 of 600 tokens" in reason


def test_one_cut_answer_of_several_is_told(serve, wire):
    whole = [wire.text("a"), wire.text("b", "length"), wire.usage(2), wire.done]
    server = serve(cut_to(wire, wire.usage(1)), wire.answer(*whole))

    assert "1 of 4 answers are shorter" in asked_for(server.url, 2).reasons[0]


@pytest.mark.parametrize(
    ("target", "counted"),
    [
        ({"ignore_eos": False}, True),
        ({"body": {"max_tokens": 1}}, True),
        ({"body": {"stop": ["."]}}, True),
        ({}, False),
    ],
)
def test_answers_that_may_end_early_or_are_not_counted_hold(
    serve, wire, target, counted
):
    server = serve(cut_to(wire, *[wire.usage(1)] * counted))

    result = asked_for(server.url, 150, **target)

    assert result.counts() == {"ok": 4}
    assert result.is_valid, result.reasons
