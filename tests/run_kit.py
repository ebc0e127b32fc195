"""Writes run directories as the plugin does, for tests of what reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_pd.report.read import Entry

PLAN = {
    "name": "local_1p1d",
    "identity": "abc123",
    "hardware": "cpu",
    "engine": "reference",
    "router": "proxy",
    "served_model": "tiny",
    "rehearsal": False,
    "nodes": [{"name": "node0", "address": "127.0.0.1", "gpus": 0, "gpus_used": 0}],
    "services": [
        {"name": "prefill-0", "role": "prefill", "node": "node0", "argv": ["serve"]},
        {"name": "decode-0", "role": "decode", "node": "node0", "argv": ["serve"]},
        {"name": "router", "role": "router", "node": "node0", "argv": ["route"]},
    ],
    "expected": {"transfer": "shared_storage"},
}


def entry(metric: str = "ttft", samples: Sequence[float] = (0.1, 0.2, 0.3), **more):
    """Return one record of ``entries.jsonl``."""
    streams = more.pop("streams", 1)
    topology = more.pop("topology", "local_1p1d")
    outcome = more.pop("outcome", "passed")
    point = more.pop("point", f"local_sweep:c{streams}")
    test = f"test_closed_loop[{point}-{topology}]"
    info = {
        "topology": topology,
        "topology_hash": "abc123",
        "mode": "real",
        "unit": "s",
        "load": {"concurrency": streams, "arrivals": "closed", "rate_per_s": None},
        "valid": True,
        **more,
    }
    return {
        "fullname": f"pd::performance/test_sweep::{test}::{metric}",
        "group": metric,
        "params": {"point": point, "topology": topology, "test": "test_closed_loop"},
        "data": list(samples),
        "extra_info": info,
        "outcome": outcome,
    }


def entry_of(*args, **more) -> Entry:
    """Return what is read from `entry`."""
    record = entry(*args, **more)
    return Entry(
        fullname=record["fullname"],
        metric=record["group"],
        samples=tuple(record["data"]),
        outcome=record["outcome"],
        params=record["params"],
        info=record["extra_info"],
    )


def outcome(verdict: str, name: str = "test_a", reason: str = "", when: str = "call"):
    """Return one record of ``results.jsonl``."""
    return {
        "nodeid": f"suites/{name}.py::{name}[topo:local_1p1d]",
        "topology": "local_1p1d",
        "verdict": verdict,
        "when": when,
        "duration_s": 0.1,
        "reason": reason,
    }


def write_run(
    path: Path,
    *,
    entries: Sequence[Mapping[str, Any]] = (),
    outcomes: Sequence[Mapping[str, Any]] = (),
    verdict: Mapping[str, Any] | None = None,
    plan: Mapping[str, Any] = PLAN,
    environment: Mapping[str, Any] | None = None,
    run_id: str = "",
) -> Path:
    """Write a run with one topology; `verdict` None is a run that was killed."""
    folder = path / "local_1p1d"
    (folder / "logs").mkdir(parents=True)
    (folder / "logs" / "decode-0.log").write_text("hello\n")
    (folder / "plan.json").write_text(json.dumps(plan))
    manifest = {"run_id": run_id or path.name, "url": "http://127.0.0.1:8000"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "environment.json").write_text(json.dumps(environment or {}))
    if entries:
        (folder / "entries.jsonl").write_text(_lines(entries))
    if outcomes:
        (path / "results.jsonl").write_text(_lines(outcomes))
    if verdict is not None:
        given = {"run_id": run_id or path.name, "exit_status": 0, **verdict}
        (path / "verdict.json").write_text(json.dumps(given))
    return path


def passed(number: int = 1, **others: int) -> dict[str, Any]:
    """Return the verdict of a run in which `number` tests passed."""
    counts = {"passed": number, **others}
    return {
        "topologies": {"local_1p1d": counts},
        "without_verdict": [],
        "exit_status": int(bool(others.keys() - {"skipped"})),
    }


def _lines(records: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)
