"""How one test ended, as a line that a killed run leaves behind. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

OUTCOMES_FILE = "results.jsonl"
BAD = ("error", "failed", "invalid", "blocked")
"""Verdicts that are not green, worst first."""
GREEN = ("passed", "skipped")
"""All others are not, also words that are not known here."""
ORDER = (*BAD, *GREEN)
NOT_RUN = "not run: "
"""How the reason of a test begins that was skipped for want of time."""


@dataclass(frozen=True, slots=True)
class TestOutcome:
    """Verdict of one test, with the first line of its reason.

    Attributes:
        when: Phase of pytest that told: ``setup``, ``call``, ``teardown``.
        reason: Empty for a test that passed.
        layer: What broke: ``infra``, ``provision``, ``server``, ``client``,
            ``accuracy``, ``performance``; empty for a test that did not.
    """

    __test__ = False

    nodeid: str
    topology: str
    verdict: str
    when: str
    duration_s: float
    reason: str = ""
    layer: str = ""

    @property
    def was_not_run(self) -> bool:
        """True when there was no time for the test: that is no result."""
        return self.verdict == "skipped" and self.reason.startswith(NOT_RUN)

    def as_record(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> TestOutcome:
        """Return what `as_record` gave; absent values are empty."""
        word = {name: str(record.get(name, "")) for name in WORDS}
        return cls(**word, duration_s=_seconds(record.get("duration_s")))


MOST_S = 1e12
WORDS = ("nodeid", "topology", "verdict", "when", "reason", "layer")


def _seconds(found: object) -> float:
    """Return a number of a file that may be damaged; 0 for what is none."""
    if not isinstance(found, int | float) or abs(found) > MOST_S:
        return 0.0
    return float(found)


def reason_of(longrepr: object) -> str:
    """Return the first line that says why, from any form of pytest's ``longrepr``."""
    if not longrepr:
        return ""
    if isinstance(longrepr, tuple):
        return str(longrepr[-1]).removeprefix("Skipped: ").strip()
    crash = getattr(longrepr, "reprcrash", None)
    if crash is not None:
        return first_line(str(crash.message))
    lines = str(longrepr).splitlines()
    told = [line[1:] for line in lines if line.startswith("E  ")]
    return first_line("\n".join(told or lines))


def first_line(text: str) -> str:
    """Return the first line that is not blank."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def settled(outcomes: Iterable[TestOutcome]) -> list[TestOutcome]:
    """Return one outcome for each test: the worst of its phases, in first order.

    What went wrong in the call counts before what went wrong in the teardown after it.
    """
    found: dict[str, TestOutcome] = {}
    for outcome in outcomes:
        known = found.get(outcome.nodeid)
        if known is None or _is_worse(outcome, known):
            found[outcome.nodeid] = outcome
    return list(found.values())


def _is_worse(later: TestOutcome, known: TestOutcome) -> bool:
    called = known.when == "call" and known.verdict in BAD
    if called and later.when == "teardown":
        return False
    return rank(later.verdict) < rank(known.verdict)


def rank(verdict: str) -> int:
    """Return how bad a verdict is; 0 is worst, unknown words count as worst."""
    return ORDER.index(verdict) if verdict in ORDER else 0
