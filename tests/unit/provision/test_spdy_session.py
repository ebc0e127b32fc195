"""SPDY frames, spoken by a client of our own; kubectl speaks it in other tests."""

from __future__ import annotations

import asyncio
import hashlib
import struct
import zlib

import pytest

from pytest_pd.provision.kube_local.spdy import (
    FIN,
    PING,
    RST_STREAM,
    SYN_REPLY,
    SYN_STREAM,
    Session,
    dictionary,
)
from pytest_pd.provision.kube_local.streams import execute, forward

DIGEST = "51d27341373f923f3cd88e1eb7162aeaa3723d7585ff2399201dc06498407f02"
DEADLINE_S = 30


def test_the_dictionary_is_that_of_the_draft():
    assert hashlib.sha256(dictionary()).hexdigest() == DIGEST


class Client:
    """The other side of a connection."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.deflate = zlib.compressobj(zdict=dictionary())

    def control(self, kind, body, flags=0):
        head = struct.pack(">HHB", 0x8003, kind, flags) + len(body).to_bytes(3, "big")
        self.writer.write(head + body)

    def open(self, number, **headers):
        words = [w.encode() for pair in headers.items() for w in pair]
        block = struct.pack(">I", len(headers))
        block += b"".join(struct.pack(">I", len(w)) + w for w in words)
        packed = self.deflate.compress(block) + self.deflate.flush(zlib.Z_SYNC_FLUSH)
        self.control(SYN_STREAM, struct.pack(">IIH", number, 0, 0) + packed)

    def send(self, number, data, flags=0):
        head = struct.pack(">IB", number, flags) + len(data).to_bytes(3, "big")
        self.writer.write(head + data)

    async def frame(self):
        head = await self.reader.readexactly(8)
        body = await self.reader.readexactly(int.from_bytes(head[5:], "big"))
        if head[0] & 0x80:
            return int.from_bytes(head[2:4], "big"), head[4], body
        return int.from_bytes(head[:4], "big"), head[4], body

    async def until_end(self, number):
        """Return the data of one stream up to its end."""
        found = b""
        while True:
            kind, flags, body = await self.frame()
            if kind == number:
                found += body
                if flags & FIN:
                    return found


def talk(serve, say):
    """Serve one session and return what the client's side of it returns."""

    async def both():
        sessions = []

        async def accept(reader, writer):
            session = Session(reader, writer)
            sessions.append(asyncio.create_task(session.run()))
            await serve(session)
            await sessions[0]
            writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await say(Client(reader, writer))
        finally:
            writer.close()
            await asyncio.sleep(0.05)
            server.close()

    return asyncio.run(both())


def test_streams_are_acknowledged_with_their_headers_read():
    seen = {}

    async def serve(session):
        stream = await session.opened.get()
        seen.update(stream.headers)

    async def say(client):
        client.open(1, streamtype="error", requestid="7")
        return await client.frame()

    kind, _, body = talk(serve, say)
    assert (kind, body[:4]) == (SYN_REPLY, b"\0\0\0\1")
    assert seen == {"streamtype": "error", "requestid": "7"}


def test_pings_are_returned():
    async def serve(session):
        pass

    async def say(client):
        client.control(PING, b"\0\0\0\5")
        return await client.frame()

    assert talk(serve, say) == (PING, 0, b"\0\0\0\5")


@pytest.mark.parametrize("size", [5, 100_000])
def test_data_goes_both_ways_and_ends(size):
    async def serve(session):
        stream = await session.opened.get()
        got = b""
        while (data := await stream.data.get()) is not None:
            got += data
        await stream.write(got[::-1])
        await stream.close()

    async def say(client):
        client.open(1)
        text = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        for start in range(0, size, 10_000):
            client.send(1, text[start : start + 10_000])
        client.send(1, b"", FIN)
        return (await client.until_end(1)) == text[::-1]

    assert talk(serve, say)


def test_a_stream_that_is_reset_ends():
    async def serve(session):
        stream = await session.opened.get()
        assert await stream.data.get() is None

    async def say(client):
        client.open(1)
        await client.frame()
        client.control(RST_STREAM, struct.pack(">II", 1, 5))
        client.control(PING, b"\0\0\0\1")
        return (await client.frame())[0]

    assert talk(serve, say) == PING


def test_a_port_that_refuses_is_told_on_the_error_stream():
    async def serve(session):
        await forward(session, "127.0.0.1")

    async def say(client):
        client.open(1, streamtype="error", requestid="0")
        client.open(3, streamtype="data", requestid="0", port="1")
        found = await client.until_end(1)
        client.writer.close()
        return found

    assert b"port 1" in talk(serve, say)


def test_a_port_is_forwarded():
    async def serve(session):
        async def echo(reader, writer):
            writer.write((await reader.read()).upper())
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        say.port = server.sockets[0].getsockname()[1]
        say.ready.set()
        await forward(session, "127.0.0.1")
        server.close()

    async def say(client):
        await say.ready.wait()
        client.open(1, streamtype="error", requestid="0")
        client.open(3, streamtype="data", requestid="0", port=str(say.port))
        client.send(3, b"hello", FIN)
        found = await client.until_end(3)
        client.writer.close()
        return found

    say.ready = asyncio.Event()
    assert talk(serve, say) == b"HELLO"


@pytest.mark.parametrize(
    ("code", "said"), [(0, b'"Success"'), (7, b"exit code 7"), (9, b'"9"')]
)
def test_a_command_runs_and_its_code_is_told(code, said):
    async def serve(session):
        words = ["sh", "-c", f"echo out; exit {code}"]
        await execute(session, words, {"PATH": "/usr/bin:/bin"}, ["stdout", "error"])

    async def say(client):
        client.open(1, streamtype="error")
        client.open(3, streamtype="stdout")
        out = await client.until_end(3)
        assert out == b"out\n"
        return await client.until_end(1)

    assert said in talk(serve, say)
