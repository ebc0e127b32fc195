"""Two sets of runs, metric by metric, and what else is different. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_pd.errors import MeasurementError
from pytest_pd.measure.ratio import JITTER, Change, Ratio, compare_runs, has_ratio
from pytest_pd.report.comparable import check_comparable, check_same_load
from pytest_pd.report.differences import differences
from pytest_pd.report.read import Entry, RunRecord, TopologyRecord

Key = tuple[str, ...]
MEANS = ("output_token_time", "request_time", "goodput_time")
"""Metrics that are rates: samples are of equal work, their mean is time by work."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One metric of one test on both sides."""

    name: str
    metric: str
    statistic: str
    unit: str
    ratio: Ratio
    change: Change


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything two sides have in common, and what they have not.

    Attributes:
        only_old, only_new: Names of entries that one side alone has.
        differences: (what, old, new) of plans and environments.
    """

    rows: tuple[Compared, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]
    differences: tuple[tuple[str, str, str], ...]


def default_statistic(metric: str) -> str:
    """Return what of a metric is compared when nobody says: median, mean for rates."""
    return "mean" if metric in MEANS else "p50"


def compare(
    old: Sequence[RunRecord],
    new: Sequence[RunRecord],
    *,
    effect: float = 0.05,
    confidence: float = 0.95,
    jitter: float = JITTER,
    force: bool = False,
) -> Comparison:
    """Compare what holds on both sides; entries that do not hold are left out.

    Args:
        effect: Smallest change that matters, as a share.
        force: Compare though kinds, hardware, topologies or loads differ.

    Raises:
        MeasurementError: the sides cannot be compared, or have nothing in common.
    """
    if not force:
        check_comparable(old, new)
    sides = [grouped(runs, loose=force) for runs in (old, new)]
    common = [key for key in sides[0] if key in sides[1]]
    if not common:
        raise MeasurementError(
            "The two sides have no valid measurement in common.",
            hint="look at 'holds' in their reports, or compare with --force",
        )
    if not force:
        for key in common:
            check_same_load("::".join(key), sides[0][key], sides[1][key])
    rows = tuple(
        _row("::".join(key), sides[0][key], sides[1][key], effect, confidence, jitter)
        for key in common
    )
    only = [tuple("::".join(k) for k in s if k not in common) for s in sides]
    found = differences(_topologies(old), _topologies(new))
    return Comparison(rows, only[0], only[1], tuple(found))


def _row(
    name: str,
    old: Sequence[Entry],
    new: Sequence[Entry],
    effect: float,
    confidence: float,
    jitter: float,
) -> Compared:
    metric, unit = old[0].metric, old[0].unit
    statistic = default_statistic(metric)
    ratio = compare_runs(
        [entry.samples for entry in old],
        [entry.samples for entry in new],
        statistic=statistic,
        confidence=confidence,
        jitter=jitter,
    )
    return Compared(name, metric, statistic, unit, ratio, ratio.change(effect))


def _topologies(runs: Iterable[RunRecord]) -> list[TopologyRecord]:
    return [topology for run in runs for topology in run.topologies]


def grouped(runs: Iterable[RunRecord], *, loose: bool) -> dict[Key, list[Entry]]:
    """Return entries that hold by what they measured, one for each run.

    Args:
        loose: Leave the topology out of the key.
    """
    found: dict[Key, list[Entry]] = {}
    for run in runs:
        for entry in run.entries:
            statistic = default_statistic(entry.metric)
            if entry.is_valid and has_ratio(entry.samples, statistic):
                found.setdefault(key_of(entry, loose=loose), []).append(entry)
    return found


def key_of(entry: Entry, *, loose: bool) -> Key:
    """Return what makes two entries the same measurement."""
    if loose:
        return tuple(filter(None, (entry.test, entry.point, entry.metric)))
    return (entry.fullname.removeprefix("pd::"),)
