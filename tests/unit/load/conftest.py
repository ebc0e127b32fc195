"""A server that says exactly what a test wrote down, and servers of known truth."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from pytest_pd.load.point import LoadPoint
from pytest_pd.load.prompts import Prompt
from pytest_pd.load.result import LoadResult
from pytest_pd.load.run import run_load
from pytest_pd.load.target import Target
from pytest_pd.load.truth_process import TruthProcess, truth_server

Step = bytes | float | None
"""Bytes to send, seconds to wait, or None to close the connection."""


class ScriptedServer:
    """Answers the n-th request with the n-th script; the last one repeats."""

    def __init__(
        self, scripts: Sequence[Sequence[Step]], tls: ssl.SSLContext | None
    ) -> None:
        self._scripts = scripts
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self.requests: list[bytes] = []
        self.accepted = 0
        self.port = self._listener.getsockname()[1]
        self._spawn(self._accept)

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    def _spawn(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.accepted += 1
            self._sockets.append(sock)
            self._spawn(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
                self._sockets.append(sock)
            while (request := _read_request(sock)) is not None:
                with self._lock:
                    number = len(self.requests)
                    self.requests.append(request)
                script = self._scripts[min(number, len(self._scripts) - 1)]
                if not _play(sock, script):
                    break
        except OSError:
            pass
        finally:
            sock.close()

    def close(self) -> None:
        # accept() does not return when its socket is merely closed
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._sockets:
            sock.close()
        for thread in self._threads:
            thread.join(10)


def _read_request(sock: socket.socket) -> bytes | None:
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(65536)
        if not part:
            return None
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        body += sock.recv(65536)
    return head + b"\r\n\r\n" + body


def _play(sock: socket.socket, script: Sequence[Step]) -> bool:
    for step in script:
        if step is None:
            return False
        if isinstance(step, float):
            time.sleep(step)
        else:
            sock.sendall(step)
    return True


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedServer]]:
    """Return a function that starts a `ScriptedServer` with the given scripts."""
    with ExitStack() as stack:

        def start(
            *scripts: Sequence[Step], tls: ssl.SSLContext | None = None
        ) -> ScriptedServer:
            server = ScriptedServer(scripts, tls)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture(scope="session")
def truth() -> Iterator[TruthProcess]:
    """A known-truth server: first token after 20 ms, then one every 5 ms."""
    with truth_server("--ttft-ms", "20", "--itl-ms", "5") as server:
        yield server


def make_prompts(count: int, **fields: object) -> list[Prompt]:
    return [
        Prompt(text=f"a {k} b", **{"output_tokens": 8, **fields}) for k in range(count)
    ]


@pytest.fixture
def load() -> Callable[..., LoadResult]:
    """Return a function that loads a URL with `requests` prompts."""

    def run(
        url: str, requests: int = 1, concurrency: int = 1, **point: object
    ) -> LoadResult:
        offered = LoadPoint(
            concurrency=concurrency,
            requests=requests,
            **{"timeout_s": 20.0, "min_waves": 1, **point},
        )
        prompts = make_prompts(requests + offered.warmup)
        return run_load(Target(url=url, model="m"), offered, prompts)

    return run


@pytest.fixture
def load_with() -> Callable[..., LoadResult]:
    """Return a function that loads a URL with one of the engines."""

    def run(engine: str, url: str, requests: int = 1, **point: object) -> LoadResult:
        offered = LoadPoint(
            concurrency=1,
            requests=requests,
            **{"timeout_s": 20.0, "min_waves": 1, **point},
        )
        target = Target(url=url, model="m")
        return run_load(target, offered, make_prompts(requests), engine=engine)

    return run


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


class Wire:
    """Pieces of an answer, as bytes on the wire."""

    head = CHUNKED
    end = b"0\r\n\r\n"
    done = b"data: [DONE]\n\n"

    @staticmethod
    def chunk(payload: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(payload), payload)

    @staticmethod
    def text(word: str, finish: str = "null", newline: str = "\n") -> bytes:
        finish = finish if finish == "null" else f'"{finish}"'
        return (
            'data: {"id":"c1","choices":[{"index":0,"text":"'
            f'{word}","finish_reason":{finish}}}],"usage":null}}{newline}{newline}'
        ).encode()

    @staticmethod
    def usage(output: int, prompt: int = 3) -> bytes:
        return (
            'data: {"id":"c1","choices":[],"usage":{"prompt_tokens":'
            f'{prompt},"completion_tokens":{output}}}}}\n\n'
        ).encode()

    @classmethod
    def answer(cls, *payloads: bytes, pause_s: float = 0.02) -> list[Step]:
        """Return a script: each payload in a chunk of its own, time in between."""
        steps: list[Step] = [cls.head]
        for payload in payloads:
            steps += [cls.chunk(payload), pause_s]
        return [*steps, cls.end]


@pytest.fixture(scope="session")
def wire() -> type[Wire]:
    return Wire


@pytest.fixture
def unused_port() -> int:
    """A port on which nobody listens: bound and given back."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
