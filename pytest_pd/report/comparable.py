"""What may be compared with what: nothing that was another thing. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
    hashes = [
        {t.name: t.identity for run in runs for t in run.topologies}
        for runs in (old, new)
    ]
    for name in sorted(hashes[0].keys() & hashes[1].keys()):
        if hashes[0][name] != hashes[1][name]:
            raise MeasurementError(
                f"Topology {name!r} was another one: "
                f"{hashes[0][name]} against {hashes[1][name]}.",
                hint=HINT,
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


def _names(found: Iterable[str]) -> str:
    return ", ".join(sorted(found)) or "none"


def check_same_load(name: str, old: Sequence[Entry], new: Sequence[Entry]) -> None:
    """Refuse two entries of one name that were measured under different loads.

    Raises:
        MeasurementError: with both loads.
    """
    one, other = old[-1], new[-1]
    for key in (*LOAD, *BESIDE):
        values = [_told(entry, key) for entry in (one, other)]
        if values[0] != values[1] and None not in values:
            raise _other_load(name, key, *values)
    for key in LENGTHS:
        sizes = [entry.info.get(key) for entry in (one, other)]
        if all(isinstance(size, int | float) and size > 0 for size in sizes):
            small, large = sorted(float(size) for size in sizes if size)
            if large > small * (1 + LENGTH_SLACK):
                raise _other_load(name, key, *sizes)


def _told(entry: Entry, key: str) -> object:
    return entry.load.get(key) if key in LOAD else entry.info.get(key)


def _other_load(name: str, key: str, old: object, new: object) -> MeasurementError:
    return MeasurementError(
        f"{name} was measured under another load: {key} {old} against {new}.",
        hint=HINT,
    )
