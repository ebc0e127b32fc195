"""Marks of the plugin, registered so that ``--strict-markers`` knows them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.spec.hardware import HARDWARE

LEVELS = ("quick", "standard", "full")
MARKS = {
    "pd_level(level)": "runs at this level and above: quick, standard, full",
    "pd_points(kind)": "runs once per point of the workloads: closed, open, bandwidth",
    "pd_needs(*facts)": "needs facts of the topology: disaggregated, true_tokens, ...",
    "pd_takes_s(seconds)": "is not begun when its job ends sooner than that",
    "measure": "measures time: takes its nodes for itself",
    "correctness": "correctness of answers and of the hand-over",
    "performance": "records latencies and throughput",
    "accuracy": "records lm-eval scores and judges them",
    "refit": "moves weights between layouts",
    "fault": "breaks something on purpose; opt-in on clusters",
    "slow": "takes minutes",
}


def register_marks(config: pytest.Config) -> None:
    """Make the marks known to pytest."""
    for name, text in MARKS.items():
        config.addinivalue_line("markers", f"{name}: {text}")
    for name, text in HARDWARE.items():
        config.addinivalue_line("markers", f"{name}: topologies for {text}")


def level_of(item: pytest.Item) -> str:
    """Return the level an item asks for, ``quick`` when it has none."""
    mark = item.get_closest_marker("pd_level")
    if mark is None:
        return LEVELS[0]
    if len(mark.args) != 1 or mark.args[0] not in LEVELS:
        raise pytest.UsageError(
            f"{item.nodeid}: pd_level takes one of {', '.join(LEVELS)}, "
            f"not {mark.args!r}"
        )
    return str(mark.args[0])


def is_within(level: str, limit: str) -> bool:
    """Tell whether `level` runs when `limit` was asked for."""
    return LEVELS.index(level) <= LEVELS.index(limit)


def missing_facts(item: pytest.Item, facts: Mapping[str, bool]) -> tuple[str, ...]:
    """Return what the item's ``pd_needs`` marks ask for and the topology lacks.

    Raises:
        pytest.UsageError: a fact that no topology has; a typo must not be a skip.
    """
    wanted = [fact for mark in item.iter_markers("pd_needs") for fact in mark.args]
    for fact in wanted:
        if fact not in facts:
            error = SpecError.unknown("pd_needs", str(fact), facts)
            raise pytest.UsageError(f"{item.nodeid}: {error}")
    return tuple(fact for fact in wanted if not facts[fact])
