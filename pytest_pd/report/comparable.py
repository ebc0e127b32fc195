"""What may be compared with what: nothing that was another thing. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from pytest_pd.errors import MeasurementError
from pytest_pd.report.read import Entry, RunRecord

HINT = "add --force to compare all the same; the result then says so"
LOAD = ("concurrency", "rate_per_s", "arrivals", "burstiness")
BESIDE = ("endpoint", "slo")
LENGTHS = ("input_tokens_mean", "output_tokens_mean")
LENGTH_SLACK = 0.02
"""Share by which mean lengths of the same workload may differ."""


def check_comparable(old: Sequence[RunRecord], new: Sequence[RunRecord]) -> None:
    """Refuse rehearsals against real runs, other hardware, another topology.

    Raises:
        MeasurementError: with both values, and how to compare all the same.
    """
    for key, words in (("mode", "kind"), ("hardware", "hardware")):
        sides = [_values(runs, key) for runs in (old, new)]
        if sides[0] and sides[1] and sides[0] != sides[1]:
            told = " against ".join("/".join(sorted(side)) for side in sides)
            raise MeasurementError(f"Runs of different {words}: {told}.", hint=HINT)
    hashes = [_hashes(runs) for runs in (old, new)]
    for name in sorted(hashes[0].keys() & hashes[1].keys()):
        sides = [side[name] for side in hashes]
        if len(sides[0] | sides[1]) > 1:
            told = " against ".join("/".join(sorted(side)) for side in sides)
            raise MeasurementError(
                f"Topology {name!r} was another one: {told}.", hint=HINT
            )
    if not hashes[0].keys() & hashes[1].keys():
        raise MeasurementError(
            f"No topology in common: {_names(hashes[0])} against {_names(hashes[1])}.",
            hint=HINT,
        )


def _values(runs: Iterable[RunRecord], key: str) -> set[str]:
    entries = [entry for run in runs for entry in run.entries]
    if key == "mode":
        return {entry.mode for entry in entries}
    return {str(entry.info[key]) for entry in entries if entry.info.get(key)}


def _hashes(runs: Iterable[RunRecord]) -> dict[str, set[str]]:
    found = defaultdict(set)
    for topology in (topology for run in runs for topology in run.topologies):
        found[topology.name].add(topology.identity)
    return found


def _names(found: Iterable[str]) -> str:
    return ", ".join(sorted(found)) or "none"


def check_same_load(name: str, old: Sequence[Entry], new: Sequence[Entry]) -> None:
    """Refuse entries of one name that were not all measured under one load.

    Raises:
        MeasurementError: with two loads that differ.
    """
    for one, other in combinations((*old, *new), 2):
        if told := other_load(load_of(one), load_of(other)):
            raise MeasurementError(
                f"{name} was measured under another load: {told}.", hint=HINT
            )


def load_of(entry: Entry) -> dict[str, Any]:
    """Return what an entry says of the load it was measured under."""
    told = {key: entry.load.get(key) for key in LOAD}
    told |= {key: entry.info.get(key) for key in (*BESIDE, *LENGTHS)}
    return {key: value for key, value in told.items() if value is not None}


def other_load(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return in what two loads differ; empty for the same load.

    What one of them does not say is no difference.
    """
    for key in (*LOAD, *BESIDE, *LENGTHS):
        if key in old and key in new and not _is_same(key, old[key], new[key]):
            return f"{key} {old[key]} against {new[key]}"
    return ""


def _is_same(key: str, old: Any, new: Any) -> bool:
    if key not in LENGTHS:
        return bool(old == new)
    sizes = (old, new)
    if not all(isinstance(size, int | float) and size > 0 for size in sizes):
        return True
    return bool(max(sizes) <= min(sizes) * (1 + LENGTH_SLACK))
