"""When is a service ready? It is asked in the background; one loop owns the clock."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol

from pytest_pd.errors import InfrastructureLost, SpecError
from pytest_pd.plan.model import ReadyPlan, ServicePlan
from pytest_pd.probe.http import in_words, request
from pytest_pd.probe.logs import read_text

ASK_TIMEOUT_S = 2.0
ASKING, NO_ANSWER = "asking", "no answer yet"
PENDING = (ASKING, NO_ANSWER)
"""What `Asker.ask` returns while a question is open: no answer of the service."""

SHOWN = 300
Probe = Callable[[], str | None]
"""Returns None when ready, else a few words: why not yet."""


class Watched(Protocol):
    """What a probe needs to know of a process."""

    @property
    def name(self) -> str: ...

    @property
    def log(self) -> Path: ...

    def exit_code(self) -> int | None: ...


def probe_for(ready: ReadyPlan, log: Path) -> Probe:
    """Return the question that a plan's readiness asks.

    Raises:
        SpecError: the kind is not known.
    """
    if ready.kind == "http":
        return lambda: http_answers(ready.target, ready.body)
    if ready.kind == "tcp":
        return lambda: tcp_accepts(ready.target)
    if ready.kind == "log":
        return lambda: log_says(log, ready.target)
    if ready.kind == "started":
        return lambda: None
    raise SpecError.unknown(
        "kind of readiness", ready.kind, ("http", "tcp", "log", "started")
    )


def http_answers(url: str, body: str = "") -> str | None:
    """Ask once; any 2xx whose body matches is ready."""
    try:
        answer = request(url, timeout_s=ASK_TIMEOUT_S)
    except InfrastructureLost as error:
        return error.fact.removeprefix(f"{url}: ")
    if not answer.ok:
        return f"HTTP {answer.status}"
    if body and not re.search(body, answer.text, re.DOTALL):
        return f"not yet: {' '.join(answer.text.split())[:SHOWN]}"
    return None


def tcp_accepts(target: str) -> str | None:
    """Connect once."""
    host, _, port = target.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ASK_TIMEOUT_S):
            return None
    except OSError as error:
        return in_words(error)


def log_says(log: Path, pattern: str) -> str | None:
    """Look once for a matching line."""
    found = re.search(pattern, read_text(log), re.MULTILINE)
    return None if found else f"no line like {pattern!r} yet"


class Asker:
    """Asks many services at once, so that a slow one delays no look at the others."""

    def __init__(self, workers: int = 32) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="pd-ready")
        self._open: dict[str, Future[str | None]] = {}

    def ask(self, name: str, probe: Probe) -> str | None:
        """Return the latest answer of `probe`; asks again once one has come."""
        future = self._open.get(name)
        if future is None:
            self._open[name] = self._pool.submit(probe)
            return ASKING
        if not future.done():
            return NO_ANSWER
        del self._open[name]
        return future.result()

    def __enter__(self) -> Asker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


@dataclass(slots=True)
class Wait:
    """One service that is being waited for, and the signs of life it gives.

    Attributes:
        started_s, moved_s: On the clock of the loop.
        stage: Last stage of its plan that its log has shown.
        part: How far inside that stage, ``3/17``, where the log says.
        stages_s: Stage to seconds from the start until the log first showed it.
        why: Last answer of the probe.
    """

    service: ServicePlan
    process: Watched
    probe: Probe
    started_s: float
    moved_s: float
    log_bytes: int = 0
    stage: str = ""
    part: str = ""
    why: str = "not asked yet"
    stages_s: dict[str, float] = field(default_factory=dict)

    def look(self, now_s: float) -> None:
        """Note growth of the log and new stages."""
        size = _size(self.process.log)
        if size == self.log_bytes:
            return
        text = read_text(self.process.log, offset=max(0, self.log_bytes - 256))
        self.log_bytes, self.moved_s = size, now_s
        for pattern, name in self.service.ready.stages:
            found = list(re.finditer(pattern, text, re.MULTILINE))
            if not found:
                continue
            if name not in self.stages_s:
                self.stages_s[name] = now_s - self.started_s
                self.stage, self.part = name, ""
            if name == self.stage:
                self.part = "/".join(found[-1].groups())

    def overdue(self, now_s: float) -> str:
        """Return why waiting should end; empty while it should go on."""
        ready = self.service.ready
        if now_s - self.started_s > ready.budget_s:
            return f"was not ready after {ready.budget_s:g} s"
        if now_s - self.moved_s > ready.stall_s:
            return f"has shown no progress for {ready.stall_s:g} s"
        return ""

    def describe(self, now_s: float) -> str:
        """Return ``decode-0 12 s: loading weights (connection refused)``."""
        stage = "".join(f"{word} " for word in (self.stage, self.part) if word)
        waited_s = now_s - self.started_s
        return f"{self.service.name} {waited_s:.0f} s: {stage}({self.why})"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
