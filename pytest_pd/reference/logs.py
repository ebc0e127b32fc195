"""Log lines as vLLM prints them, so that one reader understands both."""

from __future__ import annotations

import logging
import os
import sys

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

_FORMAT = "(EngineCore pid={pid}) %(levelname)s %(asctime)s [%(name)s.py] %(message)s"


class _Short(logging.Formatter):
    """Drops the prefix ``vllm.`` of our logger names."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("[vllm.", "[", 1)


def configure() -> None:
    """Send the engine's log and the access log to standard error."""
    vllm = logging.StreamHandler(sys.stderr)
    text = _FORMAT.format(pid=os.getpid())
    vllm.setFormatter(_Short(text, datefmt="%m-%d %H:%M:%S"))
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
