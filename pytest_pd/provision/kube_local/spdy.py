"""The server's side of SPDY/3.1, as far as kubectl's exec and port-forward speak it.

Source: the SPDY draft 3.1, sections 2.2 to 2.6; flow-control windows are not kept, as
in the library on the other side (moby/spdystream).
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from dataclasses import dataclass, field

WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding "
    "accept-language accept-ranges age allow authorization cache-control connection "
    "content-base content-encoding content-language content-length content-location "
    "content-md5 content-range content-type date etag expect expires from host "
    "if-match if-modified-since if-none-match if-range if-unmodified-since "
    "last-modified location max-forwards pragma proxy-authenticate "
    "proxy-authorization range referer retry-after server te trailer "
    "transfer-encoding upgrade user-agent vary via warning www-authenticate method "
    "get status|200 OK|version HTTP/1.1 url public set-cookie keep-alive origin"
)
REST = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417"
    "502504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 "
    "Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 "
    "Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct "
    "Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,"
    "image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset="
    "iso-8859-1,utf-,*,enq=0."
)
VERSION = 0x8003
SYN_STREAM, SYN_REPLY, RST_STREAM, PING, GOAWAY = 1, 2, 3, 6, 7
FIN = 1
CHUNK = 32768


def dictionary() -> bytes:
    """Return what both sides know of headers before the first one is sent."""
    parts = WORDS.split("|")
    words = [*parts[0].split(), parts[1], *parts[2].split()]
    known = b"".join(struct.pack(">I", len(w)) + w.encode() for w in words)
    return known + REST.encode()


@dataclass(slots=True, eq=False)
class Stream:
    """One stream that the client opened.

    Attributes:
        data: What the client sends; None is its end.
    """

    session: Session
    number: int
    headers: dict[str, str]
    data: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)
    closed: bool = False

    async def write(self, data: bytes) -> None:
        """Send data to the client."""
        for start in range(0, len(data), CHUNK):
            await self.session.send_data(self.number, data[start : start + CHUNK])

    async def close(self) -> None:
        """Say that nothing more comes."""
        if not self.closed:
            self.closed = True
            await self.session.send_data(self.number, b"", FIN)


class Session:
    """One connection after its upgrade."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._reader, self._writer = reader, writer
        self._inflate = zlib.decompressobj(zdict=dictionary())
        self._deflate = zlib.compressobj(zdict=dictionary())
        self._streams: dict[int, Stream] = {}
        self._lock = asyncio.Lock()
        self.opened: asyncio.Queue[Stream | None] = asyncio.Queue()

    async def run(self) -> None:
        """Read frames until the client hangs up."""
        try:
            while True:
                head = await self._reader.readexactly(8)
                size = int.from_bytes(head[5:8], "big")
                body = await self._reader.readexactly(size)
                if head[0] & 0x80:
                    await self._control(int.from_bytes(head[2:4], "big"), head[4], body)
                else:
                    self._data(int.from_bytes(head[:4], "big"), head[4], body)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            for stream in self._streams.values():
                stream.data.put_nowait(None)
            self.opened.put_nowait(None)

    def _data(self, number: int, flags: int, body: bytes) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        if body:
            stream.data.put_nowait(body)
        if flags & FIN:
            stream.data.put_nowait(None)

    async def _control(self, kind: int, flags: int, body: bytes) -> None:
        if kind == SYN_STREAM:
            number = int.from_bytes(body[:4], "big") & 0x7FFFFFFF
            stream = Stream(self, number, self._headers(body[10:]))
            self._streams[number] = stream
            await self._send_control(
                SYN_REPLY, struct.pack(">I", number) + self._no_headers()
            )
            if flags & FIN:
                stream.data.put_nowait(None)
            self.opened.put_nowait(stream)
        elif kind == RST_STREAM:
            number = int.from_bytes(body[:4], "big") & 0x7FFFFFFF
            if number in self._streams:
                reset = self._streams.pop(number)
                reset.closed = True
                reset.data.put_nowait(None)
        elif kind == PING:
            await self._send_control(PING, body)

    def _headers(self, block: bytes) -> dict[str, str]:
        text = self._inflate.decompress(block)
        count, at = struct.unpack_from(">I", text)[0], 4
        words = []
        for _ in range(2 * count):
            (size,) = struct.unpack_from(">I", text, at)
            words.append(text[at + 4 : at + 4 + size].decode("utf-8", "replace"))
            at += 4 + size
        return dict(zip(words[::2], words[1::2], strict=True))

    def _no_headers(self) -> bytes:
        block = self._deflate.compress(struct.pack(">I", 0))
        return block + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    async def send_data(self, number: int, data: bytes, flags: int = 0) -> None:
        """Send one data frame."""
        head = struct.pack(">I", number) + bytes([flags]) + len(data).to_bytes(3, "big")
        await self._write(head + data)

    async def _send_control(self, kind: int, body: bytes) -> None:
        head = struct.pack(">HH", VERSION, kind) + b"\0" + len(body).to_bytes(3, "big")
        await self._write(head + body)

    async def _write(self, frame: bytes) -> None:
        async with self._lock:
            self._writer.write(frame)
            await self._writer.drain()
