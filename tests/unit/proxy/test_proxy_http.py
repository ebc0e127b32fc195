"""What HTTP allows and few clients do."""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest
from aiohttp import web

BODY = {"model": "m", "prompt": "p", "max_tokens": 4}


async def spoken(world, text):
    """Send raw bytes and return the status line, headers and body that come."""
    port = int(world.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    got = await reader.read()
    writer.close()
    await writer.wait_closed()
    return got


def request(*headers, body=None, version="1.1"):
    data = json.dumps(BODY if body is None else body).encode()
    lines = [
        f"POST /v1/completions HTTP/{version}".encode(),
        b"Host: x",
        b"Connection: close",
        b"Content-Length: %d" % len(data),
        *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + data


async def test_a_packed_body_reaches_the_workers_unpacked(pd):
    async with pd.world() as world:
        packed = gzip.compress(json.dumps(BODY).encode())
        async with world.client.post(
            world.url + "/v1/completions",
            data=packed,
            headers={"Content-Encoding": "gzip", "Content-Type": "application/json"},
        ) as got:
            assert got.status == 200

        for fake in (world.prefill[0], world.decode[0]):
            assert "Content-Encoding" not in fake.seen[0].headers
            assert fake.seen[0].body["prompt"] == "p"


async def test_workers_are_asked_for_plain_answers(pd):
    async with pd.world() as world:
        await world.complete(headers={"Accept-Encoding": "gzip, br"})

        for fake in (world.prefill[0], world.decode[0]):
            assert fake.seen[0].headers["Accept-Encoding"] == "identity"


async def test_headers_of_the_connection_stay_with_it(pd):
    async with pd.world() as world:
        await spoken(world, request(b"Keep-Alive: timeout=9", b"TE: trailers"))

        for fake in (world.prefill[0], world.decode[0]):
            assert not {"Keep-Alive", "TE"} & set(fake.seen[0].headers)
            assert fake.seen[0].headers["Host"] == fake.url.removeprefix("http://")


@pytest.mark.parametrize(
    "header", [b"X-Odd: \xff\xfe", b"X-Request-Id: \xff", b"X-Request-Id: a b"]
)
async def test_odd_headers_do_no_harm(pd, header):
    async with pd.world() as world:
        got = await spoken(world, request(header))

        assert got.startswith(b"HTTP/1.1 200")
        assert b"x-pd-request-id: pd-" in got


async def test_an_old_client_gets_its_stream_without_chunks(pd):
    async with pd.world() as world:
        got = await spoken(world, request(body={**BODY, "stream": True}, version="1.0"))

        head, _, body = got.partition(b"\r\n\r\n")
        assert b"chunked" not in head.lower()
        assert body == b"".join(world.decode[0].pieces)


async def test_one_connection_serves_many_requests(pd):
    async with pd.world() as world:
        port = int(world.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(request().replace(b"Connection: close\r\n", b""))
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            assert json.loads(await reader.readexactly(length)) == {
                "choices": [{"text": "abc"}]
            }
        writer.close()
        await writer.wait_closed()


async def test_workers_are_asked_over_kept_connections(pd):
    peers = set()

    async def notes(request):
        peers.add(request.transport.get_extra_info("peername"))
        return web.json_response({})

    async with pd.world(decode=[pd.FakeWorker(behave=notes)]) as world:
        for _ in range(5):
            await world.complete()

        assert len(peers) == 1


async def test_a_client_that_does_not_read_holds_the_worker_back(pd):
    sent_bytes, piece = 0, b"data: " + b"x" * 65536 + b"\n\n"
    total_bytes = 1000 * len(piece)

    async def flood(request):
        nonlocal sent_bytes
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        while sent_bytes < total_bytes:
            await answer.write(piece)
            sent_bytes += len(piece)
        return answer

    async with pd.world(decode=[pd.FakeWorker(behave=flood)]) as world:
        port = int(world.url.rpartition(":")[2])
        _reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(request(body={**BODY, "stream": True}))
        before = -1
        while before != sent_bytes or not sent_bytes:
            before = sent_bytes
            await asyncio.sleep(0.3)

        assert sent_bytes < total_bytes
        writer.transport.abort()
