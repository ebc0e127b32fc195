"""Log lines as vLLM prints them, so that one reader understands both."""

from __future__ import annotations

import logging
import os
import sys
import time
from dataclasses import dataclass

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

_FORMAT = "(EngineCore pid={pid}) %(levelname)s %(asctime)s [%(name)s.py] %(message)s"


@dataclass(slots=True)
class Clock:
    """Time of day as this process believes it to be."""

    ahead_s: float = 0.0

    def now_s(self) -> float:
        """Return seconds since 1970."""
        return time.time() + self.ahead_s


class _Short(logging.Formatter):
    """Drops the prefix ``vllm.`` of our logger names; its times are `clock`'s."""

    def __init__(self, text: str, datefmt: str, clock: Clock) -> None:
        super().__init__(text, datefmt=datefmt)
        self._clock = clock

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        at_s = record.created + self._clock.ahead_s
        return time.strftime(datefmt or self.default_time_format, time.localtime(at_s))

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("[vllm.", "[", 1)


def configure(clock: Clock) -> None:
    """Send the engine's log and the access log to standard error."""
    vllm = logging.StreamHandler(sys.stderr)
    text = _FORMAT.format(pid=os.getpid())
    vllm.setFormatter(_Short(text, "%m-%d %H:%M:%S", clock))
    uvicorn = logging.StreamHandler(sys.stderr)
    uvicorn.setFormatter(logging.Formatter("%(levelname)s:     %(message)s"))
    for name, handler in (("vllm", vllm), ("uvicorn", uvicorn)):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False


class AccessLog(AbstractAccessLogger):
    """Writes ``INFO:     127.0.0.1:1 - "GET /health HTTP/1.1" 200 OK``."""

    def log(
        self, request: web.BaseRequest, response: web.StreamResponse, time: float
    ) -> None:
        peer = (
            request.transport.get_extra_info("peername") if request.transport else None
        )
        where = f"{peer[0]}:{peer[1]}" if peer else request.remote or "-"
        line = f"{request.method} {request.path_qs} HTTP/1.1"
        status = f"{response.status} {response.reason or ''}".rstrip()
        self.logger.info('%s - "%s" %s', where, line, status)
