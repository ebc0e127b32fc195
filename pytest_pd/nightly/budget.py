"""How long will these tests take? Computed from earlier nights. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

NIGHTS = 5
"""So many newest nights count."""
MARGIN = 1.5
"""A night may take so many times what the slowest known one would."""
LEAST_S = 600.0
"""No computed limit is shorter."""


@dataclass(frozen=True, slots=True)
class NightTimes:
    """Seconds of one earlier night.

    Attributes:
        overhead_s: Wall time outside of tests: bringing up, taking down, reports.
        tests_s: Test id to seconds of wall time: less than a test took where tests
            ran beside each other.
        topologies: How many topologies shared the overhead.
        queued_s: Time in which machines were waited for; no part of the overhead.
    """

    overhead_s: float
    tests_s: Mapping[str, float]
    topologies: int
    queued_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long the tests take, if it can be told.

    Attributes:
        total_s: Seconds; None when no earlier night knows any of the tests.
        unknown: How many tests no earlier night has run.
        queued_s: Longest time in the queue of these nights, for the limit alone.
    """

    total_s: float | None
    unknown: int
    tests: int
    nights: int
    queued_s: float = 0.0

    @property
    def limit_s(self) -> float | None:
        """Return the time after which a night without a budget is ended."""
        if self.total_s is None:
            return None
        return max(LEAST_S, MARGIN * (self.total_s + self.queued_s))

    def __str__(self) -> str:
        if self.total_s is None:
            return f"{self.tests} tests; no earlier night tells how long they take"
        new = f", {self.unknown} of them new" if self.unknown else ""
        return (
            f"{self.tests} tests{new}: about {self.total_s:.0f} s by "
            f"{self.nights} earlier night(s)"
        )


def estimate(
    tests: Sequence[str], topologies: int, nights: Sequence[NightTimes]
) -> Estimate:
    """Add up the slowest that each test was, and the slowest bring-up a topology.

    Args:
        topologies: How many of them the tests use.
        nights: Newest last; only the last `NIGHTS` count.

    A test that nobody has run counts as the median of those that are known.
    """
    recent = nights[-NIGHTS:]
    slowest: dict[str, float] = {}
    for night in recent:
        for test, seconds in night.tests_s.items():
            slowest[test] = max(seconds, slowest.get(test, 0.0))
    known = [slowest[test] for test in tests if test in slowest]
    unknown = len(tests) - len(known)
    if not known:
        return Estimate(None, unknown, len(tests), len(recent))
    each_s = max(night.overhead_s / max(1, night.topologies) for night in recent)
    total_s = sum(known) + unknown * median(known) + max(1, topologies) * each_s
    queued_s = max(night.queued_s for night in recent)
    return Estimate(total_s, unknown, len(tests), len(recent), queued_s)


def times_of(
    wall_s: float, outcomes: Iterable[tuple[str, str, float]], queued_s: float = 0.0
) -> NightTimes:
    """Return the times of a finished attempt.

    Args:
        outcomes: Test id, topology and seconds.
    """
    rows = list(outcomes)
    spent_s = sum(seconds for _, _, seconds in rows)
    busy_s = wall_s - queued_s
    if busy_s <= 0:  # topologies waited beside each other
        busy_s = wall_s
    share = min(1.0, busy_s / spent_s) if spent_s else 1.0
    return NightTimes(
        overhead_s=max(0.0, wall_s - queued_s - spent_s),
        tests_s={test: share * seconds for test, _, seconds in rows},
        topologies=len({topology for _, topology, _ in rows if topology}),
        queued_s=queued_s,
    )
