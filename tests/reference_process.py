"""Reference engines as processes, for tests of HTTP and of hand-over."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

TINY = Path(__file__).parents[1] / "fixtures" / "models" / "tiny"
WAIT_S = 60.0


@dataclass(frozen=True)
class ServerProcess:
    """A reference engine as a process of its own."""

    popen: subprocess.Popen[bytes]
    url: str
    log: Path
    client: httpx.Client

    def get(self, path: str, **settings: Any) -> httpx.Response:
        return self.client.get(self.url + path, **settings)

    def post(self, path: str, json: Any = None, **settings: Any) -> httpx.Response:
        return self.client.post(self.url + path, json=json, **settings)

    def complete(self, prompt: Any, **settings: Any) -> httpx.Response:
        body = {"prompt": prompt, "temperature": 0, **settings}
        return self.post("/v1/completions", body)

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the series of `name` that have all `labels`."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        total = 0.0
        for line in self.get("/metrics").text.splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and all(w in series for w in wanted):
                total += float(value)
        return total


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_healthy(url: str, popen: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while True:
        assert popen.poll() is None, log.read_text()
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health", trust_env=False).status_code == 200:
                return
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


@contextlib.contextmanager
def running_server(
    log: Path, *words: str, env: Mapping[str, str] | None = None
) -> Iterator[ServerProcess]:
    """Yield a server that is healthy; it is gone after the block."""
    port = free_port()
    argv = [sys.executable, "-m", "pytest_pd.reference", "serve", str(TINY)]
    argv += ["--host", "127.0.0.1", "--port", str(port), *words]
    with log.open("wb") as sink:
        popen = subprocess.Popen(
            argv, stderr=sink, stdout=sink, env={**os.environ, **(env or {})}
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_healthy(url, popen, log)
        with httpx.Client(trust_env=False, timeout=WAIT_S) as client:
            yield ServerProcess(popen, url, log, client)
    finally:
        popen.terminate()
        popen.wait(WAIT_S)
