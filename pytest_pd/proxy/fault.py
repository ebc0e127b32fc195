"""Faults that can be put into the proxy, so that checks are shown to fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pytest_pd.errors import SpecError

KINDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "bypass_prefill": ("send the request to a decode worker alone", ()),
    "pin_worker": (
        "always choose worker number `worker` of `role`",
        ("role", "worker"),
    ),
    "drop_worker": (
        "never choose worker number `worker` of `role`",
        ("role", "worker"),
    ),
    "ignore_session": ("hash the request's id instead of the session", ()),
    "prefill_decodes": ("let the prefill worker generate the whole answer too", ()),
    "kv_params_dropped": ("do not pass kv_transfer_params on", ()),
    "kv_params_stale": ("pass the kv_transfer_params of the request before on", ()),
    "kv_late": ("wait `seconds` between prefill and decode", ("seconds",)),
    "status": ("answer with `status` at once", ("status",)),
    "sse_error": ("end the stream by an error event before token `at`", ("at",)),
    "cut": ("cut the client's connection before token `at`", ("at",)),
    "no_done": ("leave out [DONE]", ()),
    "duplicate_token": ("send token `at` twice", ("at",)),
    "missing_token": ("leave out token `at`", ("at",)),
    "empty_first": ("send an event with empty text before the first token", ()),
    "bundle": ("send tokens in bundles of `size`", ("size",)),
    "usage_wrong": ("add 1 to usage.completion_tokens", ()),
    "stall": ("wait `seconds` before token `at`", ("at", "seconds")),
    "exit": ("end the process with `status` before token `at`", ("at", "status")),
    "metrics_frozen": ("/metrics stays as it was", ()),
    "metrics_doubled": ("/metrics shows every number twice as big", ()),
    "ready_lie": ("/readiness and /health say that all is well", ()),
    "status_lies": ("refusals and errors come with status 200", ()),
}
"""Kind to effect and to the options that it has besides after, every and count.

Token numbers count from 0 and exist in streams only."""

_COMMON = ("kind", "after", "every", "count")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault and the requests it falls on.

    Attributes:
        kind: A name in `KINDS`.
        after: Requests let through before the first that suffers.
        every: From then on each n-th suffers.
        count: Requests that suffer; None for no end.
        role: ``prefill`` or ``decode``, for faults of the choice of workers.
        worker: Number of the worker, in the order of the command line, from 0.
        status: HTTP status, or exit code.
        at: Number of the token, from 0.
        size: Tokens in a bundle.
        seconds: Length of a wait.
    """

    kind: str
    after: int = 0
    every: int = 1
    count: int | None = None
    role: str = "decode"
    worker: int = 0
    status: int = 500
    at: int = 1
    size: int = 4
    seconds: float = 1.0

    def shown(self) -> dict[str, object]:
        """Return what `parse_faults` reads, with the options that the kind has."""
        names = (*_COMMON, *KINDS[self.kind][1])
        return {name: getattr(self, name) for name in names}

    def falls_on(self, number: int) -> bool:
        """Return whether request `number`, from 0, suffers."""
        passed = number - self.after
        if passed < 0 or passed % self.every:
            return False
        return self.count is None or passed // self.every < self.count


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
            f"A fault is an object with a 'kind'; this is {item!r}.",
            hint=f"one of: {', '.join(sorted(KINDS))}",
        )
    kind = item["kind"]
    if kind not in KINDS:
        raise SpecError.unknown("fault", kind, KINDS)
    known = (*_COMMON, *KINDS[kind][1])
    for name, value in item.items():
        if name not in known:
            raise SpecError.unknown(f"option of {kind}", name, known)
        if not _fits(name, value):
            raise SpecError(f"Fault {kind!r}: {name!r} cannot be {value!r}.")
    return Fault(**item)


def _fits(name: str, value: object) -> bool:
    if name == "kind":
        return True
    if name == "role":
        return value in ("prefill", "decode")
    if isinstance(value, bool):
        return False
    if name == "seconds":
        return isinstance(value, int | float) and 0 <= value < float("inf")
    if name == "count" and value is None:
        return True
    least = 1 if name in ("every", "count", "size") else 0
    return isinstance(value, int) and value >= least


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
            fault.kind == kind and fault.after <= self._seen for fault in self._faults
        )
