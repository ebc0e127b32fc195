"""HTTP/1.1 answers: the head, and where the body ends."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pytest_pd.errors import PdError


class BadHttp(PdError):
    """Bytes that are no HTTP/1.1 answer."""


class Framing(Enum):
    """What ends the body."""

    CHUNKED = "chunked"
    LENGTH = "length"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Head:
    """Status line and the headers that matter here.

    Attributes:
        status: Status code.
        framing: What ends the body.
        length: Bytes of the body when `framing` is LENGTH, else 0.
        size: Bytes of the head, blank line included.
        keeps_open: The connection may be used again afterwards.
        is_event_stream: Content-Type is text/event-stream.
    """

    status: int
    framing: Framing
    length: int
    size: int
    keeps_open: bool
    is_event_stream: bool


def parse_head(raw: bytes | bytearray) -> Head | None:
    """Return the head at the start of `raw`, None while it is incomplete.

    Interim answers (1xx) are counted into `size` and skipped.

    Raises:
        BadHttp: this is not HTTP/1.x, or its framing cannot be known.
    """
    start = 0
    while True:
        end = raw.find(b"\r\n\r\n", start)
        if end < 0:
            _check_beginning(raw)
            return None
        lines = bytes(raw[start:end]).decode("latin-1").split("\r\n")
        status = _status(lines[0])
        start = end + 4
        if status >= 200:
            return _make_head(lines, status, start)


def _check_beginning(raw: bytes | bytearray) -> None:
    if not b"HTTP/1.".startswith(bytes(raw[:7])) or len(raw) > 1 << 16:
        raise BadHttp(f"The answer begins with {bytes(raw[:40])!r}, not with HTTP/1.")


def _status(line: str) -> int:
    words = line.split(" ", 2)
    if not words[0].startswith("HTTP/1.") or not words[1:] or not words[1].isdecimal():
        raise BadHttp(f"Status line {line[:80]!r} cannot be read.")
    return int(words[1])


def _make_head(lines: list[str], status: int, size: int) -> Head:
    pairs = (line.partition(":") for line in lines[1:])
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    if headers.get("content-encoding", "identity") != "identity":
        raise BadHttp(f"The answer is {headers['content-encoding']!r} encoded.")
    framing, length = _framing(headers, status)
    closes = "close" in headers.get("connection", "").lower()
    return Head(
        status=status,
        framing=framing,
        length=length,
        size=size,
        keeps_open=not closes and framing is not Framing.CLOSE,
        is_event_stream="text/event-stream" in headers.get("content-type", ""),
    )


def _framing(headers: dict[str, str], status: int) -> tuple[Framing, int]:
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return Framing.CHUNKED, 0
    if status in (204, 304):
        return Framing.LENGTH, 0
    if "content-length" in headers:
        if not headers["content-length"].isdecimal():
            raise BadHttp(f"Content-Length {headers['content-length']!r}.")
        return Framing.LENGTH, int(headers["content-length"])
    return Framing.CLOSE, 0


@dataclass(slots=True)
class ChunkWalker:
    """Steps over the chunks of a growing body and remembers where it stopped.

    Attributes:
        position: Offset in `raw` of the next chunk's size line.
        starts: Offset in `raw` of each chunk's payload.
        sizes: Bytes of each chunk's payload.
        is_complete: The last chunk and the trailers after it were seen.
    """

    position: int
    starts: list[int]
    sizes: list[int]
    is_complete: bool = False

    def walk(self, raw: bytearray) -> bool:
        """Go on as far as `raw` reaches; return whether the body is complete.

        Raises:
            BadHttp: a size line or the end of a chunk is wrong.
        """
        position, limit = self.position, len(raw)
        while not self.is_complete:
            line_end = raw.find(b"\r\n", position)
            if line_end < 0:
                break
            size = _chunk_size(raw, position, line_end)
            if size == 0:
                self.is_complete, position = _skip_trailers(raw, line_end, position)
                break
            after = line_end + 2 + size
            if after + 2 > limit:
                break
            if raw[after : after + 2] != b"\r\n":
                raise BadHttp(f"A chunk of {size} bytes does not end in CRLF.")
            self.starts.append(line_end + 2)
            self.sizes.append(size)
            position = after + 2
        self.position = position
        return self.is_complete


def _chunk_size(raw: bytearray, start: int, end: int) -> int:
    word = raw[start:end]
    try:
        size = int(word, 16)
    except ValueError:
        try:  # an extension may follow the size
            size = int(bytes(word).partition(b";")[0], 16)
        except ValueError as error:
            raise BadHttp(f"Chunk size {bytes(word[:20])!r}.") from error
    if size < 0:
        raise BadHttp(f"Chunk size {size}.")
    return size


def _skip_trailers(raw: bytearray, line_end: int, position: int) -> tuple[bool, int]:
    if raw[line_end + 2 : line_end + 4] == b"\r\n":
        return True, line_end + 4
    end = raw.find(b"\r\n\r\n", line_end)
    return (True, end + 4) if end >= 0 else (False, position)
