"""One socket: reads with the kernel's time of arrival, plain or under TLS."""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pytest_pd.load.decode import Reads
from pytest_pd.load.http_message import ChunkWalker, Framing, Head, parse_head
from pytest_pd.load.stamps import READ_BYTES, enable_kernel_stamps, receive

READABLE, WRITABLE = 1, 4
"""EPOLLIN and EPOLLOUT, which the module `select` names on Linux only."""
_LF_END = b"\n\n\r\n0\r\n\r\n"


@dataclass(slots=True)
class Exchange:
    """One request on its way: what was sent when, and what came back."""

    index: int
    intended_ns: int
    request: bytes
    sent_before_ns: int = 0
    sent_after_ns: int = 0
    connect_ns: int = 0
    connections: int = 0
    head_ns: int = 0
    end_ns: int = 0
    sent_bytes: int = 0
    raw: bytearray = field(default_factory=bytearray)
    reads: Reads = field(default_factory=Reads)
    head: Head | None = None
    walker: ChunkWalker | None = None
    error: str = ""
    note: Callable[[int], None] = field(init=False)

    def __post_init__(self) -> None:
        self.note = self.reads.words.append

    @property
    def is_streaming(self) -> bool:
        """Whether the head is known and chunks follow."""
        return self.head is not None and self.head.framing is Framing.CHUNKED

    def take(self, data: bytes, kernel_ns: int, user_ns: int) -> bool:
        """Add what one read brought; return whether the answer is over.

        Raises:
            BadHttp: the bytes are no HTTP/1.1 answer.
        """
        raw = self.raw
        raw += data
        self.reads.add(kernel_ns, user_ns, len(raw))
        head = self.head
        if head is None:
            head = self.head = parse_head(raw)
            if head is None:
                return False
            self.head_ns = kernel_ns or user_ns
            self.walker = ChunkWalker(head.size, [], [])
        if head.framing is Framing.CHUNKED:
            return self.is_chunked_over()
        return head.framing is Framing.LENGTH and len(raw) - head.size >= head.length

    def is_chunked_over(self) -> bool:
        """Whether the last chunk has come.

        Every read but the last costs one look at its last four bytes.

        Raises:
            BadHttp: the framing is wrong.
        """
        raw = self.raw
        if not raw.endswith(b"\r\n\r\n"):
            return False
        if raw.endswith(_LF_END):
            return True  # payload whose lines end in LF cannot hold this
        assert self.walker is not None
        return self.walker.walk(raw)


class Connection:
    """A non-blocking client socket and the exchange that it carries.

    Args:
        address: As `socket.getaddrinfo` gave it: family, type, proto, sockaddr.
        tls: Context for https, else None.
        server_hostname: Name that the certificate must carry.
    """

    __slots__ = (
        "_out",
        "_peer",
        "_tls",
        "connect_ns",
        "exchange",
        "fd",
        "has_kernel_stamps",
        "interest",
        "is_connected",
        "is_plain",
        "is_ready",
        "is_streaming",
        "opened_ns",
        "receive",
        "recvmsg",
        "requests",
        "sock",
    )

    def __init__(
        self,
        address: tuple[int, int, int, tuple[str, int]],
        *,
        tls: ssl.SSLContext | None = None,
        server_hostname: str = "",
    ) -> None:
        family, kind, proto, self._peer = address
        self.sock = socket.socket(family, kind, proto)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.has_kernel_stamps = enable_kernel_stamps(self.sock)
        self.fd = self.sock.fileno()
        self.exchange: Exchange | None = None
        self.opened_ns = 0
        self.connect_ns = 0
        self.requests = 0
        self.is_connected = False
        self.is_ready = False
        self.is_streaming = False
        self.is_plain = tls is None and self.has_kernel_stamps
        self.recvmsg = self.sock.recvmsg
        self.interest = READABLE
        self.receive: Callable[[], tuple[bytes, int]] = self._receive_plain
        self._tls = TlsPipe(tls, server_hostname) if tls else None
        self._out = b""
        if self._tls:
            self.receive = self._receive_tls

    def start(self) -> None:
        """Begin to connect.

        Raises:
            OSError: the connection was refused at once.
        """
        self.opened_ns = time.monotonic_ns()
        try:
            self.sock.connect(self._peer)
        except BlockingIOError:
            return

    def advance(self) -> bool:
        """Go on with connect and TLS handshake; return whether it is done.

        Raises:
            OSError: the connection or the handshake failed.
        """
        if error := self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise ConnectionError(error, f"connect: {os.strerror(error)}")
        self.is_connected = True
        if self._tls is not None and not self._tls.is_open:
            self._handshake(self._tls)
            if not self._tls.is_open:
                return False
        self.connect_ns = time.monotonic_ns() - self.opened_ns
        self.is_ready = True
        return True

    def _handshake(self, tls: TlsPipe) -> None:
        try:
            while data := self.sock.recv(READ_BYTES):
                tls.feed(data)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != 107:  # not connected yet: nothing to read
                raise
        self._out += tls.handshake()
        self.flush()

    def send(self, exchange: Exchange) -> None:
        """Give the request to the kernel, with a stamp before and after.

        Raises:
            OSError: the peer is gone.
        """
        self.exchange = exchange
        self.requests += 1
        data = exchange.request
        exchange.sent_before_ns = time.monotonic_ns()
        self._out = self._tls.encrypt(data) if self._tls else data
        self.flush()
        exchange.sent_after_ns = time.monotonic_ns()

    def flush(self) -> bool:
        """Send what is left; return whether all of it is gone."""
        while self._out:
            try:
                sent = self.sock.send(self._out)
            except BlockingIOError:
                return False
            self._out = self._out[sent:]
        return True

    @property
    def has_output(self) -> bool:
        return bool(self._out)

    def _receive_plain(self) -> tuple[bytes, int]:
        return receive(self.sock)

    def _receive_tls(self) -> tuple[bytes, int]:
        assert self._tls is not None
        data, real_ns = self._receive_plain()
        if not data:
            return b"", real_ns
        self._tls.feed(data)
        plain = self._tls.decrypt()
        if not plain and self._tls.is_closed:
            return b"", real_ns
        if not plain:
            raise BlockingIOError  # part of a record, or a session ticket
        return plain, real_ns

    def close(self) -> None:
        self.sock.close()


class TlsPipe:
    """TLS over memory, so that the bytes still pass through our own reads."""

    def __init__(self, context: ssl.SSLContext, server_hostname: str) -> None:
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(
            self._in, self._out, server_hostname=server_hostname
        )
        self.is_open = False
        self.is_closed = False

    def feed(self, data: bytes) -> None:
        self._in.write(data)

    def handshake(self) -> bytes:
        """Go one step and return what has to be sent."""
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            return self._out.read()
        self.is_open = True
        return self._out.read()

    def encrypt(self, data: bytes) -> bytes:
        self._ssl.write(data)
        return self._out.read()

    def decrypt(self) -> bytes:
        """Return all plain bytes that the received records hold."""
        parts = []
        while True:
            try:
                part = self._ssl.read(READ_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                part = b""
            if not part:
                self.is_closed = True
                break
            parts.append(part)
        return b"".join(parts)
