"""Starts the known-truth server as a process of its own and reads its log."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from pytest_pd.errors import ProcessDied
from pytest_pd.load.record import Array
from pytest_pd.load.truth import REQUEST_FIELDS, SEND_FIELDS


@dataclass(frozen=True, slots=True)
class TruthLog:
    """What the server really did. Times are monotonic ns of this host.

    Attributes:
        requests: int64 (r, 4): serial, client's id or -1, arrival, our read.
        sends: int64 (s, 4): serial, event number, before and after the send.
    """

    requests: Array
    sends: Array


@dataclass(frozen=True, slots=True)
class TruthProcess:
    """A running known-truth server."""

    url: str
    pid: int

    def take_log(self) -> TruthLog:
        """Return the log since the last call, and empty it."""
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"{self.url}/truth/log", timeout=30) as answer:
            words = np.frombuffer(answer.read(), "i8")
        size = int(words[0])
        return TruthLog(
            requests=words[2 : 2 + size].reshape(-1, REQUEST_FIELDS),
            sends=words[2 + size :].reshape(-1, SEND_FIELDS),
        )


@contextmanager
def truth_server(*options: str) -> Iterator[TruthProcess]:
    """Yield a known-truth server on a free port; it is gone after the block.

    Args:
        options: Command-line options, for example ``--itl-ms``, ``10``.

    Raises:
        ProcessDied: it did not start.
    """
    command = [sys.executable, "-m", "pytest_pd.load.truth", *options]
    pipe = subprocess.PIPE
    # it also ends when this process does: its standard input is then closed
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            port = process.stdout.readline().strip()
            if not port:
                raise ProcessDied(
                    f"The truth server ended with code {process.wait(5)}.",
                    hint=f"run it by hand: {' '.join(command)}",
                )
            yield TruthProcess(f"http://127.0.0.1:{port}", process.pid)
        finally:
            process.stdin.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
