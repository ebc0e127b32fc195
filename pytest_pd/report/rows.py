"""The figures of runs as tables: long (one figure a row) and wide. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from pytest_pd.report.read import Entry, RunRecord

Cell = str | float | int | bool | None
Row = dict[str, Cell]
IDENTITY = (
    "run_id",
    "topology",
    "topology_hash",
    "mode",
    "hardware",
    "engine",
    "router",
    "model",
    "gpus",
    "test",
    "point",
    "arrivals",
    "concurrency",
    "rate_per_s",
    "outcome",
    "valid",
)
"""What tells rows apart: the same columns in both forms."""
LONG = (*IDENTITY, "metric", "unit", "statistic", "value")
KNOWN = {"n", "p50", "p90", "p99", "gpus", "requests"}


def identity(entry: Entry, run_id: str) -> Row:
    """Return the identifying columns of an entry."""
    info, load = entry.info, entry.load
    given: Row = {
        "run_id": run_id,
        "topology": entry.topology,
        "mode": entry.mode,
        "test": entry.test,
        "point": entry.point,
        "arrivals": load.get("arrivals"),
        "concurrency": load.get("concurrency"),
        "rate_per_s": load.get("rate_per_s"),
        "outcome": entry.outcome,
        "valid": entry.is_valid,
    }
    return {name: given[name] if name in given else info.get(name) for name in IDENTITY}


def figures(entry: Entry) -> dict[str, float]:
    """Return statistics of the samples, then the human figures stored beside them."""
    human = {
        name: float(value)
        for name, value in entry.info.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and name not in KNOWN
    }
    return {**entry.statistics(), **human}


def long_rows(runs: Iterable[RunRecord]) -> list[Row]:
    """Return one row for each figure of each entry."""
    return [
        {
            **identity(entry, run.run_id),
            "metric": entry.metric,
            "unit": entry.unit if name in entry.statistics() else None,
            "statistic": name,
            "value": value,
        }
        for run in runs
        for entry in run.entries
        for name, value in figures(entry).items()
    ]


def wide_rows(runs: Iterable[RunRecord]) -> list[Row]:
    """Return one row for each measured point; columns are ``<metric>_<statistic>``."""
    found: dict[tuple[Cell, ...], Row] = {}
    for run in runs:
        for entry in run.entries:
            head = identity(entry, run.run_id)
            row = found.setdefault(tuple(head.values()), head)
            row.update(
                {f"{entry.metric}_{name}": v for name, v in figures(entry).items()}
            )
    return list(found.values())


def to_csv(rows: Sequence[Mapping[str, Cell]], columns: Sequence[str] = ()) -> str:
    """Return CSV text with a header; columns in order of first appearance.

    Values that a spreadsheet would take for a formula get an apostrophe in front.
    """
    names = list(columns) or list(dict.fromkeys(name for row in rows for name in row))
    sink = io.StringIO()
    writer = csv.DictWriter(sink, names, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({k: _safe(v) for k, v in row.items()} for row in rows)
    return sink.getvalue()


def _safe(value: Cell) -> Cell:
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@"):
        return f"'{value}"
    return value
