"""Heads and chunked bodies, whole and in pieces."""

from __future__ import annotations

import pytest

from pytest_pd.load.http_message import BadHttp, ChunkWalker, Framing, parse_head


def test_head_is_awaited_until_its_blank_line():
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"

    for size in range(whole.index(b"abc")):
        assert parse_head(whole[:size]) is None
    head = parse_head(whole)
    assert (head.status, head.framing, head.length) == (200, Framing.LENGTH, 3)
    assert whole[head.size :] == b"abc"


def test_interim_answers_are_skipped():
    head = parse_head(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Made\r\nContent-Length: 0\r\n\r\n"
    )

    assert head.status == 201


@pytest.mark.parametrize(
    ("headers", "framing", "keeps_open"),
    [
        ("transfer-encoding: chunked", Framing.CHUNKED, True),
        ("Transfer-Encoding: Chunked\r\nConnection: close", Framing.CHUNKED, False),
        ("Content-Length: 5", Framing.LENGTH, True),
        ("X: y", Framing.CLOSE, False),
    ],
)
def test_framing_follows_the_headers(headers, framing, keeps_open):
    head = parse_head(f"HTTP/1.1 200 OK\r\n{headers}\r\n\r\n".encode())

    assert (head.framing, head.keeps_open) == (framing, keeps_open)


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n",
    ],
)
def test_what_is_no_answer_is_refused(raw):
    with pytest.raises(BadHttp):
        parse_head(raw)


BODY = b"3\r\nabc\r\n0A;name=value\r\n0123456789\r\n0\r\n\r\n"


def test_walker_takes_a_body_byte_by_byte():
    walker, raw = ChunkWalker(0, [], []), bytearray()

    for byte in BODY[:-1]:
        raw.append(byte)
        assert not walker.walk(raw)
    raw.append(BODY[-1])
    assert walker.walk(raw)
    pieces = [raw[a : a + n] for a, n in zip(walker.starts, walker.sizes, strict=True)]
    assert b"".join(pieces) == b"abc0123456789"


def test_walker_reads_trailers():
    walker = ChunkWalker(0, [], [])

    assert not walker.walk(bytearray(b"0\r\nDigest: x\r\n"))
    assert walker.walk(bytearray(b"0\r\nDigest: x\r\n\r\n"))


@pytest.mark.parametrize("raw", [b"zz\r\n", b"3\r\nabcd\r\n", b"-3\r\nabc\r\n\r\n"])
def test_walker_refuses_wrong_chunks(raw):
    with pytest.raises(BadHttp):
        ChunkWalker(0, [], []).walk(bytearray(raw))
