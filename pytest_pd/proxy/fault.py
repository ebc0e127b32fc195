"""Faults that can be put into the proxy, so that checks are shown to fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from pytest_pd.errors import SpecError

KINDS: Mapping[str, str] = {
    "bypass_prefill": "send the request to a decode worker alone",
    "pin_worker": "always choose the worker number `worker` of `role`",
    "drop_worker": "never choose the worker number `worker` of `role`",
    "ignore_session": "hash the request's own id instead of the session",
    "prefill_decodes": "let the prefill worker generate the whole answer too",
    "kv_params_dropped": "do not pass kv_transfer_params on",
    "kv_params_stale": "pass the kv_transfer_params of an earlier request on",
    "kv_late": "wait `seconds` between prefill and decode",
    "status": "answer with `status` at once",
    "sse_error": "end the stream by an error event after `at` tokens",
    "cut": "cut the client's connection after `at` tokens",
    "no_done": "leave out [DONE]",
    "duplicate_token": "send the token number `at` twice",
    "missing_token": "leave out the token number `at`",
    "empty_first": "send an event with empty text before the first token",
    "bundle": "send tokens in bundles of `size`",
    "usage_wrong": "add 1 to usage.completion_tokens",
    "stall": "wait `seconds` before the token number `at`",
    "metrics_frozen": "/metrics stays as it was",
    "metrics_doubled": "/metrics shows every number twice as big",
    "ready_lie": "/readiness and /health say that all is well",
    "exit": "end the process with `status` at the token number `at`",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault and the requests it falls on.

    Attributes:
        kind: A name in `KINDS`.
        after: Requests let through before the first that suffers.
        count: Requests that suffer; None for all from then on.
        role: ``prefill`` or ``decode``, for faults of the choice of workers.
        worker: Number of the worker, in the order of the command line, from 0.
        status: HTTP status, or exit code.
        at: Number of the token, from 0.
        size: Tokens in a bundle.
        seconds: Length of a wait.
    """

    kind: str
    after: int = 0
    count: int | None = None
    role: str = "decode"
    worker: int = 0
    status: int = 500
    at: int = 1
    size: int = 4
    seconds: float = 1.0

    def falls_on(self, number: int) -> bool:
        """Return whether request `number`, from 0, suffers."""
        last = None if self.count is None else self.after + self.count
        return self.after <= number and (last is None or number < last)


def parse_faults(text: str | bytes) -> tuple[Fault, ...]:
    """Read one fault or a list of them from JSON.

    Raises:
        SpecError: not JSON, an unknown kind or key, or a value of the wrong type.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(
            f"A fault is not JSON: {error}.", hint="""for example '{"kind": "cut"}'"""
        ) from error
    return tuple(
        _fault(item) for item in (found if isinstance(found, list) else [found])
    )


def _fault(item: object) -> Fault:
    if not isinstance(item, dict) or not isinstance(item.get("kind"), str):
        raise SpecError(
            "A fault is not an object with a 'kind'.",
            hint=f"one of: {', '.join(sorted(KINDS))}",
        )
    if item["kind"] not in KINDS:
        raise SpecError.unknown("fault", item["kind"], KINDS)
    known = {field.name for field in fields(Fault)}
    for key, value in item.items():
        if key not in known:
            near = get_close_matches(key, known, n=1)
            raise SpecError(
                f"Fault {item['kind']!r} has an unknown key {key!r}.",
                hint=f"did you mean {near[0]!r}?"
                if near
                else f"one of: {sorted(known)}",
            )
        _check_type(item["kind"], key, value)
    return Fault(**item)


def _check_type(kind: str, key: str, value: object) -> None:
    if key in ("kind", "role"):
        right = isinstance(value, str) and (
            key == "kind" or value in ("prefill", "decode")
        )
    elif key == "seconds":
        right = _is_number(value, int | float)
    else:
        right = _is_number(value, int) or (key == "count" and value is None)
    if not right:
        raise SpecError(f"Fault {kind!r}: {key} cannot be {value!r}.")


def _is_number(value: object, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and value >= 0


NOTHING: Mapping[str, Fault] = {}


class FaultTable:
    """The faults in force; they can be changed while the proxy runs.

    Args:
        faults: Those from the start.
        on_fault: Called with the kind of each fault for each request it falls on.
    """

    def __init__(
        self, faults: Sequence[Fault], *, on_fault: Callable[[str], None]
    ) -> None:
        self._faults = tuple(faults)
        self._on_fault = on_fault
        self._seen = 0

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Return the faults in force."""
        return self._faults

    def replace(self, faults: Sequence[Fault]) -> None:
        """Put other faults in force; requests are counted from 0 again."""
        self._faults = tuple(faults)
        self._seen = 0

    def next_request(self) -> Mapping[str, Fault]:
        """Return by kind the faults that fall on the request that has just come."""
        if not self._faults:
            return NOTHING
        number = self._seen
        self._seen += 1
        falling = {f.kind: f for f in self._faults if f.falls_on(number)}
        for kind in falling:
            self._on_fault(kind)
        return falling

    def stands(self, kind: str) -> bool:
        """Return whether a fault that belongs to no request is in force."""
        return any(
            fault.kind == kind and fault.falls_on(self._seen) for fault in self._faults
        )
