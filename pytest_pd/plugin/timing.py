"""Which tests can still end before the job does: "not run: time limit"."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from pytest_pd.report.outcome import NOT_RUN

LEAST_S = 10.0
"""What any test is given, and what taking the topology down needs."""


@dataclass(slots=True)
class Durations:
    """How long tests take: as their marks say, else as their like took before."""

    longest_s: dict[str, float] = field(default_factory=dict)

    def note(self, item: pytest.Item, seconds: float) -> None:
        """Remember how long an item took; points of one function count as alike."""
        key = kind_of(item)
        self.longest_s[key] = max(seconds, self.longest_s.get(key, 0.0))

    def needed_s(self, item: pytest.Item) -> float:
        """Return the seconds an item may take, with what comes after it.

        Raises:
            pytest.UsageError: its ``pd_takes_s`` mark holds no number of seconds.
        """
        return LEAST_S + max(declared_s(item), self.longest_s.get(kind_of(item), 0.0))


def kind_of(item: pytest.Item) -> str:
    """Return what items of one test function share."""
    return item.nodeid.partition("[")[0]


def declared_s(item: pytest.Item) -> float:
    """Return what the item's ``pd_takes_s`` mark says, 0 without one."""
    mark = item.get_closest_marker("pd_takes_s")
    if mark is None:
        return 0.0
    if len(mark.args) != 1 or not isinstance(mark.args[0], (int, float)):
        raise pytest.UsageError(
            f"{item.nodeid}: pd_takes_s takes seconds, not {mark.args!r}"
        )
    return float(mark.args[0])


def why_no_time(left_s: float | None, needed_s: float) -> str:
    """Return why a test cannot end in time; empty when it can."""
    if left_s is None or left_s >= needed_s:
        return ""
    return (
        f"{NOT_RUN}time limit ({max(left_s, 0):.0f} s of the job are left, "
        f"{needed_s:.0f} s are needed)"
    )
