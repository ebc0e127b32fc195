"""A server whose answers' times are known: the truth that the instrument is held to.

Each event is sent with a stamp before and one after the send, so a scheduler that
takes the processor away in between widens the window and spoils nothing. The arrival
of a request is the kernel's stamp. The log is read by GET /truth/log.

    python -m pytest_pd.load.truth --ttft-ms 100 --itl-ms 20

prints its port and serves until its standard input is closed. A request may override
the times by a field ``truth`` in its body. Standard library only.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import re
import select
import socket
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pytest_pd.load.clock import NS, AbsoluteTimer, OffsetTracker
from pytest_pd.load.stamps import enable_kernel_stamps, receive

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLIENT_ID = re.compile(rb"\r\nx-request-id: *pd-(\d+)", re.IGNORECASE)
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
SEND_FIELDS = 4
"""Server's serial, number of the event, stamp before, stamp after."""
REQUEST_FIELDS = 4
"""Server's serial, client's id or -1, arrival, our read."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How an answer is timed and cut.

    Attributes:
        ttft_s: From arrival to the first token.
        itl_s: Between events.
        jitter_s: Uniform, added to each gap, from 0 to this.
        tokens_per_event: Tokens that one event brings.
        role: Send an empty role event at once, as chat servers do.
        sends_usage: Send usage before the end.
    """

    ttft_s: float = 0.1
    itl_s: float = 0.02
    jitter_s: float = 0.0
    tokens_per_event: int = 1
    role: bool = False
    sends_usage: bool = True


@dataclass(slots=True)
class Stream:
    """An answer under way."""

    connection: Client
    serial: int
    shape: Shape
    events: int
    is_chat: bool
    prompt_tokens: int
    sent: int = 0


@dataclass(slots=True, eq=False)
class Client:
    """A connection to us."""

    sock: socket.socket
    pending: bytearray = field(default_factory=bytearray)
    arrival_ns: int = 0
    out: bytes = b""


def frame(payload: bytes) -> bytes:
    """Return `payload` as one HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def content_event(text: str, *, is_chat: bool, finish: str | None = None) -> bytes:
    """Return an event of the size and make of vLLM's."""
    choice: dict[str, Any] = {"index": 0}
    if is_chat:
        choice["delta"] = {"content": text}
    else:
        choice["text"] = text
    choice |= {"logprobs": None, "finish_reason": finish, "stop_reason": None}
    return event(
        {
            "id": "cmpl-00000000000000000000000000000000",
            "object": "chat.completion.chunk" if is_chat else "text_completion",
            "created": 1700000000,
            "model": "truth",
            "choices": [choice],
            "usage": None,
        }
    )


class TruthServer:
    """One thread, one epoll loop; 20,000 events a second and more per core.

    Args:
        shape: Times of answers that do not say otherwise.
        port: To listen on at 127.0.0.1, 0 for a free one.
        seed: Of the jitter.
    """

    def __init__(self, shape: Shape, *, port: int = 0, seed: int = 0) -> None:
        self._shape = shape
        self._random = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._poll = select.epoll()
        self._timer = AbsoluteTimer()
        self._offset = OffsetTracker.start()
        self._clients: dict[int, Client] = {}
        self._due: list[tuple[int, int, Stream]] = []
        self._serial = 0
        self._next_refresh_ns = 0
        self.sends = array("q")
        self.requests = array("q")
        self._texts = {
            (k, is_chat): frame(content_event(f" w{k:03d}", is_chat=is_chat))
            for k in range(256)
            for is_chat in (False, True)
        }
        for fd in (self._listener.fileno(), self._timer.fd):
            self._poll.register(fd, select.EPOLLIN)

    def serve(self, stop_fd: int) -> None:
        """Serve until `stop_fd` is readable."""
        self._poll.register(stop_fd, select.EPOLLIN)
        while True:
            self._send_due()
            for fd, _ in self._poll.poll():
                if fd == stop_fd:
                    return
                if fd == self._listener.fileno():
                    self._accept()
                elif fd == self._timer.fd:
                    self._timer.clear()
                elif client := self._clients.get(fd):
                    self._read(client)

    def close(self) -> None:
        for client in list(self._clients.values()):
            self._drop(client)
        self._listener.close()
        self._poll.close()
        self._timer.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            enable_kernel_stamps(sock)
            self._clients[sock.fileno()] = Client(sock)
            self._poll.register(sock.fileno(), select.EPOLLIN)

    def _drop(self, client: Client) -> None:
        fd = client.sock.fileno()
        if self._clients.pop(fd, None) is not None:
            self._poll.unregister(fd)
        client.sock.close()

    def _read(self, client: Client) -> None:
        try:
            data, real_ns = receive(client.sock)
        except BlockingIOError:
            return
        except OSError:
            data, real_ns = b"", 0
        now = time.monotonic_ns()
        if not data:
            self._drop(client)
            return
        client.pending += data
        client.arrival_ns = real_ns - self._offset.offset_ns if real_ns else now
        self._take_request(client, now)

    def _take_request(self, client: Client, now: int) -> None:
        head_end = client.pending.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = bytes(client.pending[: head_end + 2])
        found = _LENGTH.search(head)
        end = head_end + 4 + (int(found[1]) if found else 0)
        if len(client.pending) < end:
            return
        body = bytes(client.pending[head_end + 4 : end])
        del client.pending[:end]
        path = head.split(b" ", 2)[1]
        if head.startswith(b"POST"):
            self._begin(client, head, path, body, now)
        else:
            self._get(client, path)

    def _begin(
        self, client: Client, head: bytes, path: bytes, raw: bytes, now: int
    ) -> None:
        body = json.loads(raw or b"{}")
        shape = replace(self._shape, **body.get("truth", {}))
        tokens = body.get("max_completion_tokens") or body.get("max_tokens") or 16
        serial, self._serial = self._serial, self._serial + 1
        found = _CLIENT_ID.search(head)
        client_id = int(found[1]) if found else -1
        self.requests.extend((serial, client_id, client.arrival_ns, now))
        stream = Stream(
            client,
            serial,
            shape,
            events=-(-int(tokens) // shape.tokens_per_event),
            is_chat=path.endswith(b"chat/completions"),
            prompt_tokens=_prompt_tokens(body),
        )
        if shape.role:
            role = content_event("", is_chat=True).replace(
                b'{"content":""}', b'{"role":"assistant","content":""}'
            )
            self._write(client, HEAD + frame(role))
        due = client.arrival_ns + int(shape.ttft_s * NS)
        heapq.heappush(self._due, (due, serial, stream))

    def _get(self, client: Client, path: bytes) -> None:
        if path == b"/truth/log":
            counts = array("q", [len(self.requests), len(self.sends)])
            body = b"".join(a.tobytes() for a in (counts, self.requests, self.sends))
            del self.requests[:], self.sends[:]
            kind = b"application/octet-stream"
        else:
            body = json.dumps({"object": "list", "data": [{"id": "truth"}]}).encode()
            kind = b"application/json"
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
        client.sock.setblocking(True)
        client.sock.settimeout(5)
        client.sock.sendall(head % (kind, len(body)) + body)
        client.sock.setblocking(False)

    def _send_due(self) -> None:
        now = time.monotonic_ns()
        if now > self._next_refresh_ns:
            self._offset.refresh()
            self._next_refresh_ns = now + NS // 10
        due = self._due
        while due and due[0][0] <= now:
            planned, serial, stream = heapq.heappop(due)
            if self._send_event(stream):
                gap_s = stream.shape.itl_s
                if stream.shape.jitter_s:
                    gap_s += self._random.uniform(0, stream.shape.jitter_s)
                heapq.heappush(due, (planned + int(gap_s * NS), serial, stream))
            now = time.monotonic_ns()
        if due:
            self._timer.set(due[0][0])

    def _send_event(self, stream: Stream) -> bool:
        """Send the next event; return whether more follow."""
        number, client = stream.sent, stream.connection
        stream.sent += 1
        is_last = stream.sent >= stream.events
        symbols = range(number, number + stream.shape.tokens_per_event)
        if is_last or len(symbols) > 1:
            text = "".join(f" w{k % 256:03d}" for k in symbols)
            finish = "length" if is_last else None
            data = frame(content_event(text, is_chat=stream.is_chat, finish=finish))
        else:
            data = self._texts[number % 256, stream.is_chat]
        if number == 0 and not stream.shape.role:
            data = HEAD + data
        if is_last:
            data += _tail(stream)
        pre = time.monotonic_ns()
        is_open = self._write(client, data)
        post = time.monotonic_ns()
        self.sends.extend((stream.serial, number, pre, post))
        return is_open and not is_last

    def _write(self, client: Client, data: bytes) -> bool:
        """Send all of `data`; a client that does not read is dropped."""
        if client.sock.fileno() < 0:
            return False
        try:
            sent = client.sock.send(data)
        except OSError:
            sent = -1
        if sent != len(data):
            self._drop(client)
            return False
        return True


def _tail(stream: Stream) -> bytes:
    parts = []
    if stream.shape.sends_usage:
        tokens = stream.events * stream.shape.tokens_per_event
        usage = {
            "prompt_tokens": stream.prompt_tokens,
            "completion_tokens": tokens,
            "total_tokens": stream.prompt_tokens + tokens,
        }
        parts.append(event({"id": "cmpl-0", "choices": [], "usage": usage}))
    parts.append(b"data: [DONE]\n\n")
    return b"".join(frame(part) for part in parts) + b"0\r\n\r\n"


def _prompt_tokens(body: dict[str, Any]) -> int:
    prompt = body.get("prompt", "")
    return len(prompt.split() if isinstance(prompt, str) else prompt)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ttft-ms", type=float, default=100.0)
    parser.add_argument("--itl-ms", type=float, default=20.0)
    parser.add_argument("--jitter-ms", type=float, default=0.0)
    parser.add_argument("--tokens-per-event", type=int, default=1)
    parser.add_argument("--role", action="store_true")
    args = parser.parse_args(argv)
    shape = Shape(
        ttft_s=args.ttft_ms / 1e3,
        itl_s=args.itl_ms / 1e3,
        jitter_s=args.jitter_ms / 1e3,
        tokens_per_event=args.tokens_per_event,
        role=args.role,
    )
    server = TruthServer(shape, port=args.port)
    print(server.port, flush=True)
    try:
        server.serve(sys.stdin.fileno())
    except KeyboardInterrupt:
        return 130
    finally:
        server.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
