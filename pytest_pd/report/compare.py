"""Two sets of runs, metric by metric, and what else is different. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_pd.errors import MeasurementError
from pytest_pd.measure.ratio import JITTER, Change, Ratio, compare_runs, has_ratio
from pytest_pd.report.read import Entry, RunRecord, TopologyRecord

Key = tuple[str, ...]
MEANS = ("output_token_time", "request_time", "goodput_time")
"""Metrics that are rates: their mean is total time by total work."""
PLACE = ("address", "log", "url", "metrics_url", "target", "ports", "endpoints")
"""Parts of a plan that say where, not what."""
MOST_DIFFERENCES = 60


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
        force: Compare though modes or topologies differ.

    Raises:
        MeasurementError: the sides cannot be compared, or have nothing in common.
    """
    if not force:
        check_comparable([*old], [*new])
    sides = [grouped(runs, loose=force) for runs in (old, new)]
    common = [key for key in sides[0] if key in sides[1]]
    if not common:
        raise MeasurementError(
            "The two sides have no valid measurement in common.",
            hint="look at 'holds' in their reports, or compare with --force",
        )
    rows = []
    for key in common:
        one, other = sides[0][key], sides[1][key]
        statistic = default_statistic(one[0].metric)
        ratio = compare_runs(
            [entry.samples for entry in one],
            [entry.samples for entry in other],
            statistic=statistic,
            confidence=confidence,
            jitter=jitter,
        )
        name = "::".join(key)
        change = ratio.change(effect)
        rows.append(
            Compared(name, one[0].metric, statistic, one[0].unit, ratio, change)
        )
    only = [tuple("::".join(k) for k in s if k not in common) for s in sides]
    found = differences(_topologies(old), _topologies(new))
    return Comparison(tuple(rows), only[0], only[1], tuple(found))


def check_comparable(old: Sequence[RunRecord], new: Sequence[RunRecord]) -> None:
    """Refuse rehearsals against real runs, and another topology of the same name.

    Raises:
        MeasurementError: with both values, and how to compare all the same.
    """
    hint = "add --force to compare all the same; the result then says so"
    modes = [
        {entry.mode for run in runs for entry in run.entries} for runs in (old, new)
    ]
    if modes[0] and modes[1] and modes[0] != modes[1]:
        told = " against ".join("/".join(sorted(mode)) for mode in modes)
        raise MeasurementError(f"Runs of different kind: {told}.", hint=hint)
    hashes = [
        {t.name: t.identity for run in runs for t in run.topologies}
        for runs in (old, new)
    ]
    for name in sorted(hashes[0].keys() & hashes[1].keys()):
        if hashes[0][name] != hashes[1][name]:
            raise MeasurementError(
                f"Topology {name!r} was another one: "
                f"{hashes[0][name]} against {hashes[1][name]}.",
                hint=hint,
            )
    if not hashes[0].keys() & hashes[1].keys():
        raise MeasurementError(
            f"No topology in common: {_names(hashes[0])} against {_names(hashes[1])}.",
            hint=hint,
        )


def _names(found: Iterable[str]) -> str:
    return ", ".join(sorted(found)) or "none"


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


def _topologies(runs: Iterable[RunRecord]) -> list[TopologyRecord]:
    return [topology for run in runs for topology in run.topologies]


def differences(
    old: Sequence[TopologyRecord], new: Sequence[TopologyRecord]
) -> list[tuple[str, str, str]]:
    """Return what differs between the last topology record of each side.

    Paths of the runs, addresses and ports are where, not what: they are left out.
    """
    if not old or not new:
        return []
    one, other = (_facts(side[-1]) for side in (old, new))
    pools = [_services(side[-1]) for side in (old, new)]
    alone = pools[0].keys() ^ pools[1].keys()
    hidden = tuple(f"plan.services.{name}." for name in alone)
    names = [
        name
        for name in {**one, **other}
        if one.get(name) != other.get(name) and not name.startswith(hidden)
    ]
    told = {f"service {name}": name for name in sorted(alone)}
    one |= {words: pools[0].get(name, "–") for words, name in told.items()}
    other |= {words: pools[1].get(name, "–") for words, name in told.items()}
    names += told
    found = [(n, one.get(n, "–"), other.get(n, "–")) for n in names]
    return found[:MOST_DIFFERENCES]


def _services(topology: TopologyRecord) -> dict[str, str]:
    services = topology.plan.get("services", ())
    return {str(s["name"]): f"{s['role']} on {s.get('node')}" for s in services}


def _facts(topology: TopologyRecord) -> dict[str, str]:
    environment = {
        key: value
        for key, value in topology.environment.items()
        if key not in ("variables", "load_average")
    }
    info = topology.entries[0].info if topology.entries else {}
    flat = {
        **flatten("plan", topology.plan),
        **flatten("environment", environment),
        **flatten("commit", info.get("git_sha", "")),
    }
    run = str(topology.folder.resolve())
    return {name: text.replace(run, "{run}") for name, text in flat.items()}


def flatten(name: str, value: Any) -> dict[str, str]:
    """Return dotted names to text for nested mappings; lists are joined."""
    if isinstance(value, Mapping):
        found: dict[str, str] = {}
        for key, inner in value.items():
            if key not in PLACE:
                found |= flatten(f"{name}.{key}", inner)
        return found
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        named = {str(v.get("name", i)): v for i, v in enumerate(value)}
        return flatten(name, named)
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return {name: text}
