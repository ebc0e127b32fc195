"""Faults on purpose: what can go wrong, when it starts, and where it strikes.

A fault is data. `KINDS` says for each kind at which seam of the engine it strikes and
which options it has; the code at the seam asks `Faults.fire` and does what it is told.
To add one: a row in `KINDS`, and its effect where the seam is.

Seams, and what is one event there: ``start`` (the process starts), ``http`` (a call
comes in), ``models`` (the models are listed), ``submit`` (the engine accepts a
request), ``lookup`` (the prefix cache is asked), ``admit`` (KV of a request was found
elsewhere), ``kv`` (KV leaves or enters this engine), ``step`` (a forward pass),
``stream`` (a stream begins), ``metrics`` (the page is read).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pytest_pd.errors import SpecError

Seam = Literal[
    "start",
    "http",
    "models",
    "submit",
    "lookup",
    "admit",
    "kv",
    "step",
    "stream",
    "metrics",
]


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One way to fail.

    Attributes:
        seam: Where it strikes.
        effect: One line for the user.
        options: Names and default values of its own options.
    """

    seam: Seam
    effect: str
    options: Mapping[str, object] = field(default_factory=dict)


_PLACE: Mapping[str, object] = {"layer": 1, "head": 0, "block": 0}
_AT: Mapping[str, object] = {"at": 2}
"""Number of the token event, from zero, at which a stream goes wrong."""

KINDS: Mapping[str, FaultKind] = {
    "kv_bit_flip": FaultKind(
        "kv",
        "one bit is flipped in every element of one block of one head of one layer",
        {**_PLACE, "bit": -1},
    ),
    "kv_swap": FaultKind("kv", "a request gets the KV of the request before it"),
    "kv_stale": FaultKind(
        "kv", "one block keeps what the transfer before left there", {"block": 0}
    ),
    "kv_truncated": FaultKind("kv", "blocks from one on are empty", {"block": 0}),
    "kv_not_sent": FaultKind("kv", "KV is withheld"),
    "kv_late": FaultKind("kv", "KV comes late, as from a slow disk", {"seconds": 0.5}),
    "silent_recompute": FaultKind(
        "admit",
        "the decode engine computes the prompt itself in spite of a hand-over",
        {"metrics": "honest", "pull": False},
    ),
    "false_hit": FaultKind(
        "lookup", "the prefix cache takes another prompt's blocks for this one's"
    ),
    "prefill_also_decodes": FaultKind(
        "submit", "a prefill request generates more than it was asked", {"tokens": 8}
    ),
    "prompt_cut": FaultKind(
        "submit", "the first tokens of a prompt are lost", {"tokens": 1}
    ),
    "http_error": FaultKind("http", "a request is refused", {"status": 500}),
    "stall": FaultKind("http", "a request waits before it is begun", {"seconds": 5.0}),
    "crash": FaultKind("http", "the process ends at a request", {"code": 1}),
    "clock_step": FaultKind(
        "http", "the clock of the process jumps, once", {"seconds": 3600.0}
    ),
    "models_wrong": FaultKind("models", "other models are listed than are served"),
    "stream_error": FaultKind("stream", "a stream ends with an error event", _AT),
    "stream_cut": FaultKind("stream", "the connection drops in a stream", _AT),
    "stream_crash": FaultKind(
        "stream", "the process ends in a stream", {**_AT, "code": 1}
    ),
    "stream_stall": FaultKind("stream", "a stream pauses", {**_AT, "seconds": 5.0}),
    "no_done": FaultKind("stream", "a stream ends without [DONE]"),
    "token_twice": FaultKind("stream", "a token is sent twice", _AT),
    "token_missing": FaultKind("stream", "a token is not sent", _AT),
    "first_chunk_empty": FaultKind("stream", "an empty text comes first"),
    "tokens_bundled": FaultKind("stream", "several tokens come in one", {"size": 4}),
    "usage_wrong": FaultKind("stream", "usage counts other tokens", {"by": 1}),
    "slow_step": FaultKind(
        "step", "one rank computes slowly; -1 is all", {"seconds": 0.02, "rank": -1}
    ),
    "memory_growth": FaultKind("step", "each step leaks memory", {"mib": 1}),
    "metrics_frozen": FaultKind("metrics", "the page stays as it was at the strike"),
    "slow_start": FaultKind("start", "the server listens late", {"seconds": 5.0}),
    "old_kv": FaultKind("start", "the KV folder holds what an earlier run has left"),
    "crash_at_start": FaultKind("start", "the process ends at start", {"code": 1}),
    "ready_lie": FaultKind(
        "start", "it says that it is ready before the engine runs", {"seconds": 5.0}
    ),
}
"""Kind to seam, effect and options."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault to commit.

    Attributes:
        kind: Key of `KINDS`.
        after: Events at the seam that pass before the first strike.
        every: Strike at each n-th event from then on.
        count: Strikes in all; None for no end.
        options: The kind's own options, defaults filled in.
    """

    kind: str
    after: int = 0
    every: int = 1
    count: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, content: object) -> Fault:
        """Read ``{"kind": "kv_swap", "after": 20}``.

        Raises:
            SpecError: no mapping, an unknown kind or option, or a number below zero.
        """
        if not isinstance(content, Mapping) or "kind" not in content:
            raise SpecError(f'A fault is a mapping with "kind"; this is {content!r}.')
        kind = str(content["kind"])
        if kind not in KINDS:
            raise SpecError.unknown("fault", kind, KINDS)
        own = KINDS[kind].options
        for name in content:
            if name not in (*_COMMON, *own):
                raise SpecError.unknown(f"option of {kind}", name, (*_COMMON, *own))
        options = {name: content.get(name, value) for name, value in own.items()}
        return cls(kind, *_numbers(content), options)

    def strikes(self, index: int) -> bool:
        """Say whether this fault strikes at event `index`, counted from zero."""
        passed = index - self.after
        if passed < 0 or passed % self.every:
            return False
        return self.count is None or passed // self.every < self.count


_COMMON = ("kind", "after", "every", "count")


def _numbers(content: Mapping[str, Any]) -> tuple[int, int, int | None]:
    after, every = content.get("after", 0), content.get("every", 1)
    count = content.get("count")
    for name, value, least in (("after", after, 0), ("every", every, 1)):
        if not isinstance(value, int) or value < least:
            raise SpecError(
                f"{name!r} of a fault is {value!r}; it is a number >= {least}."
            )
    if count is not None and (not isinstance(count, int) or count < 1):
        raise SpecError(f"'count' of a fault is {count!r}; it is a number >= 1.")
    return after, every, count


def parse_faults(texts: Sequence[str]) -> tuple[Fault, ...]:
    """Read faults from JSON texts, each one fault or a list of them.

    Raises:
        SpecError: a text is not JSON, or not a fault.
    """
    found: list[Fault] = []
    for text in texts:
        try:
            content = json.loads(text)
        except ValueError as exc:
            raise SpecError(
                f"--fault {text!r} is not JSON ({exc}).",
                hint="""--fault '{"kind": "kv_swap", "after": 20}'""",
            ) from exc
        entries = content if isinstance(content, list) else [content]
        found += [Fault.parse(entry) for entry in entries]
    return tuple(found)


class Faults:
    """The faults of one engine and how many events each seam has seen."""

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._seen: dict[Seam, int] = {}
        self._faults: tuple[Fault, ...] = tuple(faults)

    def replace(self, faults: Sequence[Fault]) -> None:
        """Commit these from now on; all events are counted from zero again."""
        with self._lock:
            self._faults = tuple(faults)
            self._seen.clear()

    def fire(self, seam: Seam) -> tuple[Fault, ...]:
        """Count one event at `seam` and return the faults that strike at it."""
        if not self._faults:
            return ()
        with self._lock:
            index = self._seen.get(seam, 0)
            self._seen[seam] = index + 1
            return tuple(
                fault
                for fault in self._faults
                if KINDS[fault.kind].seam == seam and fault.strikes(index)
            )
