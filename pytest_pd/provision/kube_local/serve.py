"""What a kubelet answers to the API server: logs, exec, port-forward."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from pytest_pd.provision.kube_local.pods import PodRunner
from pytest_pd.provision.kube_local.spdy import Session
from pytest_pd.provision.kube_local.streams import execute, forward

Find = Callable[[str, str], PodRunner | None]
HEAD_S, LOOK_S = 10.0, 0.05
CHUNK = 65536
STREAMS = {"input": "stdin", "output": "stdout", "error": "stderr"}


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request."""

    method: str
    words: tuple[str, ...]
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]

    def asks(self, name: str) -> bool:
        """Whether a switch is on."""
        return self.query.get(name, ["0"])[0] in ("1", "true")

    @property
    def protocol(self) -> str:
        """The first protocol of the streams that the client offers."""
        return self.headers.get("x-stream-protocol-version", "").split(",")[0].strip()


async def serve(
    find: Find, host: str, port: int, tls: ssl.SSLContext
) -> asyncio.Server:
    """Answer until the server is closed."""

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                async with asyncio.timeout(HEAD_S):
                    request = await read_head(reader)
                await dispatch(find, request, reader, writer)
        finally:
            writer.close()

    return await asyncio.start_server(answer, host, port, ssl=tls)


async def read_head(reader: asyncio.StreamReader) -> Request:
    """Read the head of a request; bodies are of no use here."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ", 2)
    parts = urlsplit(target)
    pairs = (line.partition(":") for line in head[1:] if line)
    headers: dict[str, str] = {}
    for name, _, value in pairs:
        key = name.lower()
        headers[key] = ", ".join(filter(None, (headers.get(key), value.strip())))
    words = tuple(parts.path.strip("/").split("/"))
    return Request(method, words, parse_qs(parts.query), headers)


async def dispatch(
    find: Find,
    request: Request,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Answer one request."""
    kind, *rest = request.words
    runner = find(rest[0], rest[1]) if len(rest) > 1 else None
    if kind not in ("containerLogs", "exec", "portForward") or runner is None:
        await refuse(writer, 404, "no such pod")
    elif kind == "containerLogs":
        await send_log(runner, request, writer)
    elif "spdy" not in request.headers.get("upgrade", "").lower():
        await refuse(writer, 400, "only SPDY/3.1 is spoken here")
    elif runner.container is None or runner.finished.is_set():
        await refuse(writer, 400, "the pod does not run")
    else:
        await upgrade(runner, request, reader, writer)


async def refuse(writer: asyncio.StreamWriter, code: int, text: str) -> None:
    """Send an error."""
    head = f"HTTP/1.1 {code} Refused\r\nContent-Length: {len(text)}\r\n"
    writer.write(f"{head}Connection: close\r\n\r\n{text}".encode())
    await writer.drain()


async def send_log(
    runner: PodRunner, request: Request, writer: asyncio.StreamWriter
) -> None:
    """Send a container's log, and what it writes while it runs if asked to follow."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n")
    writer.write(b"Connection: close\r\n\r\n")
    container = runner.container
    if container is None:
        return
    with container.log.open("rb") as file:
        while True:
            over = container.done.is_set()
            while data := file.read(CHUNK):
                writer.write(data)
                await writer.drain()
            if over or not request.asks("follow"):
                return
            await asyncio.sleep(LOOK_S)


async def upgrade(
    runner: PodRunner,
    request: Request,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Turn the connection into a SPDY session and serve what was asked."""
    assert runner.container is not None
    head = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade"]
    head += ["Upgrade: SPDY/3.1", f"X-Stream-Protocol-Version: {request.protocol}"]
    writer.write(("\r\n".join(head) + "\r\n\r\n").encode())
    await writer.drain()
    session = Session(reader, writer)
    reading = asyncio.create_task(session.run())
    try:
        if request.words[0] == "portForward":
            await forward(session, runner.address)
            return
        wanted = [n for key, n in STREAMS.items() if request.asks(key)]
        words = runner.container.inside(request.query.get("command", []))
        env = runner.container.env
        await execute(session, words, env, [*wanted, "error"])
        with suppress(TimeoutError):
            async with asyncio.timeout(HEAD_S):
                await reading
    finally:
        reading.cancel()
