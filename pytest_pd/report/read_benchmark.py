"""Read a pytest-benchmark JSON file as a run: what was saved, samples included."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_pd.errors import MeasurementError
from pytest_pd.report.read import Entry, RunRecord, TopologyRecord, entry_from


def read_benchmark(path: Path) -> RunRecord:
    """Return the entries of this package in a file of ``--benchmark-json``.

    There is no plan and no verdict in it; the topology's hash is in every entry.

    Raises:
        MeasurementError: not such a file, or none of its entries has samples of ours.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = [_record(each) for each in content["benchmarks"]]
        entries = [entry_from(record) for record in found if record["data"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MeasurementError(
            f"{str(path)!r} is no pytest-benchmark file.",
            hint="write one with --benchmark-json FILE",
        ) from error
    if not entries:
        raise MeasurementError(
            f"{str(path)!r} has no entry with samples of pytest-pd.",
            hint="save samples too: --benchmark-save-data",
        )
    names = dict.fromkeys(entry.topology for entry in entries)
    topologies = tuple(_topology(path, name, entries) for name in names)
    run_id = str(entries[0].info.get("run_id") or path.stem)
    return RunRecord(path, run_id, {}, (), topologies)


def _record(each: Mapping[str, Any]) -> dict[str, Any]:
    name = str(each["fullname"])
    data = each["stats"].get("data") if name.startswith("pd::") else None
    return {**each, "fullname": name, "data": data or []}


def _topology(path: Path, name: str, entries: list[Entry]) -> TopologyRecord:
    own = tuple(entry for entry in entries if entry.topology == name)
    plan = {"name": name, "identity": str(own[0].info.get("topology_hash", ""))}
    return TopologyRecord(name, path.parent / name, plan, {}, {}, own, ())
