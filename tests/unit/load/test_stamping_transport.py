"""Our transport under httpx: what any client may ask of one."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from pytest_pd.load.transport import StampingTransport

PLAIN = b"HTTP/1.1 200 OK\r\nX-Word: a: b\r\nContent-Length: 2\r\n\r\nhi"


def ask(urls, read=httpx.Response.aread):
    """Return what `read` makes of the answer of each URL, asked one by one."""

    async def all_of_them():
        async with httpx.AsyncClient(transport=StampingTransport()) as client:
            found = []
            for url in urls:
                async with client.stream("POST", url, content=b"x") as answer:
                    found.append((answer, await read(answer)))
            return found

    return asyncio.run(all_of_them())


def test_headers_and_body_come_as_sent(serve):
    ((answer, body),) = ask([serve([PLAIN]).url])

    assert (answer.status_code, body) == (200, b"hi")
    assert answer.headers["x-word"] == "a: b"


def test_connection_is_used_again(serve):
    server = serve([PLAIN])

    ask([server.url] * 3)

    assert server.accepted == 1


def test_connection_that_died_idle_is_replaced(serve):
    server = serve([PLAIN, 0.05, None], [PLAIN])

    async def pause(answer):
        await answer.aread()
        await asyncio.sleep(0.3)

    found = ask([server.url] * 2, pause)

    assert [answer.status_code for answer, _ in found] == [200, 200]
    assert server.accepted == 2


def test_interim_answers_are_left_out(serve):
    ((answer, body),) = ask(
        [serve([b"HTTP/1.1 103 Hints\r\nA: b\r\n\r\n" + PLAIN]).url]
    )

    assert (answer.status_code, body) == (200, b"hi")
    assert "a" not in answer.headers


def test_pieces_carry_the_kernels_time(serve, wire):
    """The reader sleeps; the pieces say when they came all the same."""

    async def read(answer):
        times = []
        async for _ in answer.aiter_raw():
            times.append(answer.extensions["arrived"]())
            time.sleep(0.12)  # noqa: ASYNC251 (a busy loop is the point)
        return times

    # the kernel begins to stamp some milliseconds after the first socket asks for it
    steps = [wire.head, 0.1, wire.chunk(b"a"), 0.06, wire.chunk(b"b"), wire.end]
    server = serve(steps)
    ((_, [first, second]),) = ask([server.url], read)

    assert second[0] - first[0] > 0.05e9
    assert second[1] - second[0] > 0.02e9, "read late"


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ([PLAIN[:-1], None], httpx.RemoteProtocolError),
        ([b"220 smtp\r\n", None], httpx.RemoteProtocolError),
        ([None], httpx.RemoteProtocolError),
    ],
)
def test_failures_are_those_of_httpx(serve, script, error):
    with pytest.raises(error):
        ask([serve(script).url])


def test_what_came_before_a_failure_is_given(serve, wire):
    pieces = []

    async def read(answer):
        async for piece in answer.aiter_raw():
            pieces.append(piece)

    with pytest.raises(httpx.RemoteProtocolError):
        ask([serve([wire.head, wire.chunk(b"a"), wire.chunk(b"b"), None]).url], read)

    assert pieces == [b"a", b"b"]


def test_nobody_listening_is_a_connect_error(unused_port):
    with pytest.raises(httpx.ConnectError):
        ask([f"http://127.0.0.1:{unused_port}"])
