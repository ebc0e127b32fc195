"""What may be compared with what: nothing that was another thing. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from pytest_pd.errors import MeasurementError
from pytest_pd.report.entry import suite_id
from pytest_pd.report.read import Entry, RunRecord

HINT = "add --force to compare all the same; the result then says so"
LOAD = ("concurrency", "rate_per_s", "arrivals", "burstiness")
BESIDE = ("endpoint", "slo")
ANSWERS = "output_tokens_mean"
LENGTHS = ("input_tokens_mean", ANSWERS)
LENGTH_SLACK = 0.02
"""Share by which mean lengths of the same workload may differ."""
SAMPLED_SLACK = 0.25
"""The same where answers end by themselves: every run asks for other ones, and means of
64 lengths that scatter by half of themselves differ by 9 % as one standard deviation.
"""
Key = tuple[str, ...]


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
    # where every request has the same length asked and kept, the mean is a whole number
    is_sampled = key == ANSWERS and not all(float(size).is_integer() for size in sizes)
    slack = SAMPLED_SLACK if is_sampled else LENGTH_SLACK
    return bool(max(sizes) <= min(sizes) * (1 + slack))


def identity(entry: Entry) -> Key:
    """Return what a baseline must share: nothing else is compared, ever."""
    return (entry.fullname, *_set_up(entry))


def key_of_test(entry: Entry) -> Key:
    """Return the test, at its point, and the set-up that an entry is of."""
    return (name_of_test(entry.fullname), *_set_up(entry))


def name_of_test(fullname: str) -> str:
    """Return the part of an entry's name that all metrics of a test share."""
    return fullname.rpartition("::")[0]


def loads_of(entries: Iterable[Entry]) -> dict[Key, dict[str, Any]]:
    """Return the tests that measured something that holds, each with its load."""
    found: dict[Key, dict[str, Any]] = {}
    for entry in entries:
        if entry.is_valid:
            found.setdefault(key_of_test(entry), {}).update(load_of(entry))
    return found


def _set_up(entry: Entry) -> Key:
    keys = ("topology_hash", "hardware", "engine", "label")
    return (entry.mode, *(str(entry.info.get(key, "")) for key in keys))


def measured_tests(run: RunRecord) -> dict[Key, dict[str, Any]]:
    """Return the tests that the run measured, or that passed, with their loads."""
    passed = {
        _entry_name(outcome.nodeid)
        for outcome in run.outcomes
        if outcome.verdict == "passed"
    }
    set_ups = {identity(entry)[1:] for entry in run.entries}
    silent: dict[Key, dict[str, Any]] = {
        (name, *set_up): {} for name in passed for set_up in set_ups
    }
    return silent | loads_of(run.entries)


def _entry_name(nodeid: str) -> str:
    """Return what the entries of a test are named by."""
    file, _, test = nodeid.replace("topo:", "").partition("::")
    name, bracket, params = test.partition("[")
    return f"pd::{suite_id(Path(file))}::{name.rpartition('::')[2]}{bracket}{params}"


@dataclass(frozen=True, slots=True)
class Places:
    """Which runs of a baseline still count, the newest asked first.

    Attributes:
        judged: Tests that the run under judgement measured, each with its load.
        seen: Runs that count, by test of the same load, and by set-up.
    """

    keep: int
    judged: Mapping[Key, Mapping[str, Any]]
    seen: Counter[Key] = field(default_factory=Counter)

    @property
    def are_taken(self) -> bool:
        return all(self.seen[key] >= self.keep for key in self.judged)

    def taken_by(self, run: RunRecord) -> RunRecord:
        """Return the run with those entries only for which there was a place left."""
        set_ups = {key[1:] for key in self.judged}
        loads = loads_of(run.entries)
        places = {
            key: self._place(key, load)
            for key, load in loads.items()
            if key[1:] in set_ups
        }
        free = {key for key, place in places.items() if self.seen[place] < self.keep}
        self.seen.update({*places.values(), *(key[1:] for key in places)})
        topologies = tuple(
            replace(
                one, entries=tuple(e for e in one.entries if key_of_test(e) in free)
            )
            for one in run.topologies
        )
        return replace(run, topologies=topologies)

    def _place(self, key: Key, load: Mapping[str, Any]) -> Key:
        """Return what a test counts for: itself, or the set-up, to be told of only."""
        is_judged = key in self.judged and not other_load(load, self.judged[key])
        return key if is_judged else key[1:]
