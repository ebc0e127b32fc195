"""The record of one request on its way through: times, workers, outcome."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_pd.proxy.fault import NOTHING, Fault
from pytest_pd.proxy.replies import DECODE_HEADER, PREFILL_HEADER, REQUEST_ID_HEADER
from pytest_pd.proxy.worker import Role

log = logging.getLogger("pytest_pd.proxy")

CLIENT_GONE = 499
"""Status counted for a client that left: nginx' number, never sent."""


@dataclass(slots=True)
class Exchange:
    """What is known of a request so far. Times are monotonic seconds.

    Attributes:
        stage: Where it is: ``queue``, ``prefill``, ``decode``, ``stream``.
        served_by: The last worker tried for each role.
    """

    request_id: str
    route: str
    faults: Mapping[str, Fault] = field(default_factory=lambda: NOTHING)
    started_s: float = field(default_factory=time.monotonic)
    stage: str = "queue"
    served_by: dict[Role, str] = field(default_factory=dict)
    queue_s: float = 0.0
    prefill_s: float | None = None
    first_byte_s: float | None = None
    status: int = 0
    outcome: str = "ok"
    retries: int = 0
    pieces: int = 0
    size_bytes: int = 0

    def elapsed_s(self) -> float:
        """Return seconds since the request arrived."""
        return time.monotonic() - self.started_s

    def headers(self) -> dict[str, str]:
        """Return the witness for the client: who served which stage."""
        return {
            REQUEST_ID_HEADER: self.request_id,
            PREFILL_HEADER: self.served_by.get(Role.PREFILL, "none"),
            DECODE_HEADER: self.served_by.get(Role.DECODE, "none"),
        }

    def write_line(self) -> None:
        """Log the request in one line of ``key=value``."""
        log.log(
            logging.INFO
            if self.status < 500 and self.outcome == "ok"
            else logging.WARNING,
            "request id=%s route=%s status=%d outcome=%s prefill=%s decode=%s "
            "queue_ms=%s prefill_ms=%s first_byte_ms=%s total_ms=%s "
            "pieces=%d bytes=%d retries=%d",
            self.request_id,
            self.route,
            self.status,
            self.outcome,
            self.served_by.get(Role.PREFILL, "none"),
            self.served_by.get(Role.DECODE, "none"),
            _ms(self.queue_s),
            _ms(self.prefill_s),
            _ms(self.first_byte_s),
            _ms(self.elapsed_s()),
            self.pieces,
            self.size_bytes,
            self.retries,
        )


def _ms(seconds: float | None) -> str:
    return "none" if seconds is None else f"{seconds * 1000:.3f}"
