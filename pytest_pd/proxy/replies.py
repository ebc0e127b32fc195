"""Answers of the proxy's own, in the shape of the OpenAI API's errors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

REQUEST_ID_HEADER = "x-pd-request-id"
PREFILL_HEADER = "x-pd-prefill-worker"
DECODE_HEADER = "x-pd-decode-worker"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: status, headers and body."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class RefusedError(Exception):
    """The request ends here with `answer`.

    Args:
        answer: What the client gets.
        outcome: Word under which it is counted.
    """

    def __init__(self, answer: Answer, outcome: str) -> None:
        self.answer = answer
        self.outcome = outcome
        super().__init__(outcome)


def error_body(status: int, message: str, *, kind: str, code: str) -> bytes:
    """Return the JSON of an error as OpenAI clients read it."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    return json.dumps({"error": error | {"status": status}}).encode()


def error_answer(
    status: int,
    message: str,
    *,
    kind: str,
    code: str,
    retry_after_s: float | None = None,
) -> Answer:
    """Return an error answer; `retry_after_s` is told in whole seconds, rounded up."""
    headers = {"Content-Type": "application/json"}
    if retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
        headers["Retry-After-Ms"] = str(max(1, math.ceil(retry_after_s * 1000)))
    return Answer(status, error_body(status, message, kind=kind, code=code), headers)


def rate_limited(wait_s: float) -> RefusedError:
    """Return the refusal of a request over the rate limit."""
    return RefusedError(
        error_answer(
            429,
            "Rate limit of the proxy reached.",
            kind="rate_limit_error",
            code="rate_limit_exceeded",
            retry_after_s=wait_s,
        ),
        "rate_limited",
    )


def overloaded(code: str, message: str) -> RefusedError:
    """Return the refusal of a request that got no place."""
    answer = error_answer(
        503, message, kind="overloaded_error", code=code, retry_after_s=1
    )
    return RefusedError(answer, code)


def no_worker(role: str, detail: str) -> RefusedError:
    """Return the refusal when every worker of a role is down."""
    message = f"No healthy {role} worker. {detail}".strip()
    answer = error_answer(
        503,
        message,
        kind="unavailable_error",
        code=f"no_{role}_worker",
        retry_after_s=1,
    )
    return RefusedError(answer, f"no_{role}_worker")


def bad_gateway(role: str, worker: str, reason: str, attempts: int) -> RefusedError:
    """Return the answer when every attempt at a stage has failed."""
    message = (
        f"The {role} stage failed after {attempts} attempt(s); "
        f"the last, on {worker}: {reason}."
    )
    answer = error_answer(502, message, kind="upstream_error", code=f"{role}_failed")
    return RefusedError(answer, f"{role}_failed")


def stream_error_event(worker: str, reason: str) -> bytes:
    """Return the server-sent event that ends a broken stream."""
    body = error_body(
        502,
        f"The decode worker {worker} failed in the middle of the answer: {reason}.",
        kind="upstream_error",
        code="stream_broken",
    )
    return b"data: " + body + b"\n\n"
