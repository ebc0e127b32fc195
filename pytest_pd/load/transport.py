"""A transport for httpx that reads when bytes entered the kernel, not when we woke.

httpx keeps its interface; below it are the same connections as the epoll loop's. Each
piece of a body that is yielded has its arrival in ``response.extensions["arrived"]``.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx

from pytest_pd.load.clock import NS, OffsetTracker
from pytest_pd.load.connection import Connection, Exchange
from pytest_pd.load.http_message import BadHttp, Framing
from pytest_pd.load.pool import MAX_IDLE_NS, Address, resolve_host

Trace = Callable[[str, dict[str, Any]], Awaitable[None]]
Key = tuple[str, str, int]
REFRESH_NS = NS // 20


async def _silent(_: str, __: dict[str, Any]) -> None:
    return


class StampingTransport(httpx.AsyncBaseTransport):
    """HTTP/1.1 over our own sockets; belongs to one running event loop.

    Args:
        tls: Context for https; None for the system's.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._idle: dict[Key, list[tuple[int, Connection]]] = defaultdict(list)
        self._addresses: dict[Key, Address] = {}
        self._refreshed_ns = 0
        self.offset = OffsetTracker.start()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request`; return once the head of the answer is there."""
        now = time.monotonic_ns()
        if now - self._refreshed_ns > REFRESH_NS:
            self._refreshed_ns = now
            self.offset.refresh()
        trace: Trace = request.extensions.get("trace") or _silent
        data = _head(request) + b"".join([part async for part in _body(request)])
        key = _key(request.url)
        if (connection := self._reusable(key)) is not None:
            try:
                return await self._ask(connection, key, data, trace)
            except _DiedIdle:
                pass
        connection = await self._connect(key, trace)
        return await self._ask(connection, key, data, trace)

    async def aclose(self) -> None:
        for connections in self._idle.values():
            for _, connection in connections:
                connection.close()
        self._idle.clear()

    def keep(self, key: Key, connection: Connection) -> None:
        """Have `connection` ready for another request."""
        self._idle[key].append((time.monotonic_ns(), connection))

    def _reusable(self, key: Key) -> Connection | None:
        now, idle = time.monotonic_ns(), self._idle[key]
        while idle:
            since, connection = idle.pop()
            if now - since < MAX_IDLE_NS:
                return connection
            connection.close()
        return None

    async def _connect(self, key: Key, trace: Trace) -> Connection:
        scheme, host, port = key
        await trace("connection.connect_tcp.started", {})
        tls = None
        if scheme == "https":
            tls = self._tls or ssl.create_default_context()
        try:
            if key not in self._addresses:
                self._addresses[key] = resolve_host(host, port)
            connection = Connection(self._addresses[key], tls=tls, server_hostname=host)
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error
        try:
            connection.start()
            await _ready(connection.fd, writes=True)
            while not connection.advance():
                await _ready(connection.fd, writes=connection.has_output)
        except OSError as error:  # of TLS, too
            connection.close()
            raise httpx.ConnectError(str(error)) from error
        except BaseException:
            connection.close()
            raise
        return connection

    async def _ask(
        self, connection: Connection, key: Key, data: bytes, trace: Trace
    ) -> httpx.Response:
        exchange = Exchange(0, 0, data)
        body = BodyStream(self, connection, exchange, key)
        try:
            await trace("http11.send_request_headers.started", {})
            connection.send(exchange)
            while connection.has_output:
                await _ready(connection.fd, writes=True)
                connection.flush()
            await trace("http11.send_request_body.complete", {})
            await body.head()
        except OSError as error:
            await body.aclose()
            if connection.requests > 1:
                raise _DiedIdle from error
            raise httpx.WriteError(str(error)) from error
        except BaseException:
            await body.aclose()
            raise
        head = exchange.head
        assert head is not None
        return httpx.Response(
            head.status,
            headers=_headers(bytes(exchange.raw[: head.size])),
            stream=body,
            extensions={"http_version": b"HTTP/1.1", "arrived": body.arrived},
        )


class _DiedIdle(Exception):
    """A connection that was used again had died meanwhile."""


class BodyStream(httpx.AsyncByteStream):
    """The body of one answer, framing taken off, with the arrival of each piece."""

    def __init__(
        self,
        transport: StampingTransport,
        connection: Connection,
        exchange: Exchange,
        key: Key,
    ) -> None:
        self._transport, self._connection, self._key = transport, connection, key
        self._exchange = exchange
        self._pieces: deque[tuple[bytes, int, int]] = deque()
        self._stir = asyncio.Event()
        self._is_over = self._is_closed = False
        self._error: Exception | None = None
        self._given = 0
        self._arrived = (0, 0)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection.fd, self._on_readable)

    def arrived(self) -> tuple[int, int]:
        """Return kernel and user stamp of the last piece: monotonic ns, 0 for none."""
        return self._arrived

    async def head(self) -> None:
        """Wait until the head of the answer is there."""
        while self._exchange.head is None:
            await self._wait()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            while self._pieces:
                data, kernel_ns, user_ns = self._pieces.popleft()
                self._arrived = kernel_ns, user_ns
                yield data
            if self._is_over:
                return
            await self._wait()

    async def aclose(self) -> None:
        """Keep the connection if the answer is over, else close it."""
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.remove_reader(self._connection.fd)
        head = self._exchange.head
        if self._is_over and head is not None and head.keeps_open:
            self._transport.keep(self._key, self._connection)
        else:
            self._connection.close()

    async def _wait(self) -> None:
        if self._error is None:
            await self._stir.wait()
            self._stir.clear()
        if self._error is not None and not self._pieces:
            raise self._error

    def _on_readable(self) -> None:
        try:
            data, real_ns = self._connection.receive()
            user_ns = time.monotonic_ns()
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error)
            return
        kernel_ns = real_ns - self._transport.offset.offset_ns if real_ns else 0
        if data:
            self._take(data, kernel_ns, user_ns)
        else:
            self._end(None)
        self._stir.set()

    def _take(self, data: bytes, kernel_ns: int, user_ns: int) -> None:
        exchange = self._exchange
        try:
            is_over = exchange.take(data, kernel_ns, user_ns)
            for piece in self._new_pieces():
                self._pieces.append((piece, kernel_ns, user_ns))
        except BadHttp as error:
            self._error = httpx.RemoteProtocolError(error.fact)
            return
        if is_over:
            self._is_over = True
            self._loop.remove_reader(self._connection.fd)

    def _new_pieces(self) -> list[bytes]:
        raw, head = self._exchange.raw, self._exchange.head
        if head is None:
            return []
        if head.framing is not Framing.CHUNKED:
            start = head.size + self._given
            self._given = len(raw) - head.size
            return [bytes(raw[start:])] if len(raw) > start else []
        walker = self._exchange.walker
        assert walker is not None
        walker.walk(raw)
        first, self._given = self._given, len(walker.starts)
        spans = zip(walker.starts[first:], walker.sizes[first:], strict=True)
        return [bytes(raw[at : at + size]) for at, size in spans]

    def _end(self, error: OSError | None) -> None:
        """The peer is gone: the end of a body framed so, else a failure."""
        head = self._exchange.head
        self._loop.remove_reader(self._connection.fd)
        if error is None and head is not None and head.framing is Framing.CLOSE:
            self._is_over = True
        elif not self._exchange.raw and self._connection.requests > 1:
            self._error = _DiedIdle()
        elif error is not None:
            self._error = httpx.ReadError(str(error))
        else:
            self._error = httpx.RemoteProtocolError(
                "connection closed before the answer's end"
            )
        self._stir.set()


async def _ready(fd: int, *, writes: bool) -> None:
    """Wait until `fd` can be written to, or read from."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def tell() -> None:
        if not done.done():
            done.set_result(None)

    add, remove = loop.add_reader, loop.remove_reader
    if writes:
        add, remove = loop.add_writer, loop.remove_writer
    add(fd, tell)
    try:
        await done
    finally:
        remove(fd)


def _key(url: httpx.URL) -> Key:
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


async def _body(request: httpx.Request) -> AsyncIterator[bytes]:
    assert isinstance(request.stream, httpx.AsyncByteStream)
    async for part in request.stream:
        yield part


def _head(request: httpx.Request) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
    lines += [b"%b: %b" % (name, value) for name, value in request.headers.raw]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _headers(head: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers of the last block, which follows the interim answers."""
    block = head[:-4].rpartition(b"\r\n\r\n")[2]
    pairs = (line.partition(b":") for line in block.split(b"\r\n")[1:])
    return [(name.strip(), value.strip()) for name, _, value in pairs]
