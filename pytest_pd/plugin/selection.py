"""Which topologies a session runs on, and whether each reached a verdict. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from _pytest.mark.expression import Expression

from pytest_pd.errors import SpecError
from pytest_pd.spec.hardware import HARDWARE

DEFAULT = "local_1p1d"
DASH = "+"
"""Stands for ``-`` in test ids, where ``-`` parts the parameters."""
TOPOLOGY_ID = re.compile(r"[\[-]topo:([\w.@+]+)[\]-]")


@dataclass(frozen=True, slots=True)
class Selected:
    """One topology of the session.

    Attributes:
        id: Name in test ids; rehearsals carry ``@rehearsal`` behind it.
        explicit: Named by the user without a glob: must reach a verdict.
        facts: What tests may need, and whether it holds: ``disaggregated``, ...
        unfit: Why it cannot run here; its tests are skipped with that.
    """

    id: str
    path: Path
    hardware: str
    level: str
    explicit: bool
    facts: Mapping[str, bool] = field(default_factory=dict)
    unfit: str = ""


def topology_of(nodeid: str) -> str | None:
    """Return the topology that a test id names, or None."""
    found = TOPOLOGY_ID.search(nodeid)
    return found[1].replace(DASH, "-") if found else None


def param_id(topology_id: str) -> str:
    """Return how test ids name a topology; `topology_of` reads it back."""
    return f"topo:{topology_id.replace('-', DASH)}"


def hardware_in(expression: str) -> tuple[str, ...]:
    """Return the hardware that a ``-m`` expression mentions, in table order."""
    words = set(re.findall(r"\w+", expression))
    return tuple(name for name in HARDWARE if name in words)


def can_match(expression: str, hardware: str) -> bool:
    """Tell whether ``-m EXPRESSION`` can hold for an item of this hardware.

    Raises:
        SpecError: it is no expression.
    """
    if not expression:
        return True
    try:
        compiled = Expression.compile(expression)
    except Exception as error:  # pytest 8 raises a class of its own
        raise SpecError(
            f"-m {expression!r} is no expression: {getattr(error, 'msg', error)}.",
            hint="marks joined by and, or, not: -m 'h100 and not slow'",
        ) from error

    def matcher(other_marks: bool) -> Callable[..., bool]:
        return lambda name, /, **_: (
            name == hardware if name in HARDWARE else other_marks
        )

    return any(compiled.evaluate(matcher(other)) for other in (True, False))


def without_verdict(
    selected: Sequence[Selected], verdicts: Mapping[str, int]
) -> tuple[str, ...]:
    """Return the topologies that had to reach a verdict and did not.

    Members of a glob need not, each for itself; one of all of them must.
    """
    silent = [s for s in selected if not verdicts.get(s.id)]
    nobody = len(silent) == len(selected)
    return tuple(s.id for s in silent if s.explicit or nobody)
