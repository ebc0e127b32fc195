"""The wire of the pull hand-over: one line of JSON per message, raw pages behind it."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from pytest_pd.errors import PdError

_TIMEOUT_S = 30.0
_LINE_BYTES = 1 << 20

Answer = Callable[[Mapping[str, Any]], tuple[dict[str, Any], bytes]]
"""From a message to the reply and the bytes that follow it."""


class TransferError(PdError):
    """KV that was promised could not be brought here."""


class PageServer(socketserver.ThreadingTCPServer):
    """Answers peers, each in a thread of its own, until it is closed.

    Args:
        host: Address to listen on.
        port: Port; 0 takes a free one.
        answer: Called for every message.

    Raises:
        OSError: the port is taken.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, host: str, port: int, answer: Answer) -> None:
        self.answer = answer
        super().__init__((host, port), _Talk)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.server_address[1])

    def close(self) -> None:
        """Stop listening."""
        self.shutdown()
        self.server_close()


class _Talk(socketserver.StreamRequestHandler):
    """One peer's messages, until it hangs up."""

    disable_nagle_algorithm = True

    def handle(self) -> None:
        assert isinstance(self.server, PageServer)
        with suppress(ConnectionError, ValueError, KeyError, TypeError):
            while line := self.rfile.readline(_LINE_BYTES):
                try:
                    reply, behind = self.server.answer(json.loads(line))
                except TransferError as exc:
                    reply, behind = {"error": exc.fact}, b""
                self.wfile.write(json.dumps(reply).encode() + b"\n" + behind)


class PeerLink:
    """A connection to a producer; a context manager.

    Args:
        host: Where the producer listens.
        port: The same.
        greeting: Sent along with every message: which engine, which layout.
    """

    def __init__(self, host: str, port: int, greeting: Mapping[str, Any]) -> None:
        self._greeting = greeting
        try:
            self._socket = socket.create_connection((host, port), _TIMEOUT_S)
        except OSError as exc:
            raise TransferError(
                f"The producer at {host}:{port} cannot be reached: {exc}."
            ) from exc
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self._socket.makefile("rb")

    def __enter__(self) -> PeerLink:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()
        self._socket.close()

    def ask_pages(self, blocks: Sequence[int]) -> None:
        """Ask for the pages of `blocks`."""
        self._send({"op": "read", "blocks": list(blocks)})

    def pages(self) -> bytes:
        """Return the pages that were asked for.

        Raises:
            TransferError: the producer refused, or hung up too early.
        """
        size = int(self._reply()["bytes"])
        found = self._stream.read(size)
        if len(found) < size:
            raise TransferError(f"The producer sent {len(found)} of {size} bytes.")
        return found

    def done(self, request: object) -> None:
        """Tell the producer that the blocks of `request` are no longer needed."""
        self._send({"op": "done", "request": request})
        self._reply()

    def _send(self, message: Mapping[str, Any]) -> None:
        line = json.dumps({**message, **self._greeting}).encode() + b"\n"
        try:
            self._socket.sendall(line)
        except OSError as exc:
            raise TransferError(f"The producer went away: {exc}.") from exc

    def _reply(self) -> dict[str, Any]:
        try:
            line = self._stream.readline(_LINE_BYTES)
        except OSError as exc:
            raise TransferError(f"The producer went away: {exc}.") from exc
        if not line:
            raise TransferError("The producer hung up before it answered.")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise TransferError(f"The producer refused: {reply['error']}.")
        return reply
