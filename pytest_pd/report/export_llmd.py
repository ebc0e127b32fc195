"""llm-d's Benchmark Report 0.2.1: one YAML file for each measured point. Pure.

Source: schema_v0_2 of ``llmd-benchmark-report`` 0.2.1, which validates the files in
the tests. Only what was measured is written; fields of others are left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import yaml

from pytest_pd.report.points import Point, points_of
from pytest_pd.report.read import RunRecord, TopologyRecord
from pytest_pd.report.setup import Pool, pools_of
from pytest_pd.report.write import Content, file_word

VERSION = "0.2.1"
STATISTICS = {
    **{name: name for name in ("mean", "min", "max", "p1", "p5", "p25", "p50", "p75")},
    "p90": "p90",
    "p95": "p95",
    "p99": "p99",
    "p99.9": "p99p9",
}
"""Our name of a statistic to theirs."""
LATENCIES = {
    "ttft": ("time_to_first_token", "s"),
    "tpot": ("time_per_output_token", "s/token"),
    "itl": ("inter_token_latency", "s/token"),
    "e2e": ("request_latency", "s"),
}
HOSTS = {"prefill": "prefill", "decode": "decode", "aggregated": "replica"}


def llmd_files(runs: Sequence[RunRecord]) -> dict[str, Content]:
    """Return file name to content, for every point that holds."""
    files: dict[str, Content] = {}
    for run in runs:
        topologies = {topology.name: topology for topology in run.topologies}
        for point in points_of([run]):
            if point.is_valid and point.any.info.get("load"):
                words = (run.run_id, point.topology, point.workload, point.label)
                name = "_".join(["benchmark_report", *map(file_word, words)])
                data = benchmark_report(run, topologies[point.topology], point)
                files[f"llm-d/{name}.yaml"] = yaml.safe_dump(data, sort_keys=False)
    return files


def benchmark_report(
    run: RunRecord, topology: TopologyRecord, point: Point
) -> dict[str, Any]:
    """Return the report of one point as plain values."""
    return {
        "version": VERSION,
        "run": _run(run, topology, point),
        "scenario": {
            "stack": [
                *(_engine(topology, pool) for pool in pools_of(topology)),
                *_routers(topology),
            ],
            "load": _load(point),
        },
        "results": {
            "request_performance": {
                "aggregate": {
                    "requests": _requests(point),
                    "latency": _latency(point),
                    "throughput": _throughput(point),
                }
            },
        },
    }


def _id(*words: object) -> str:
    return hashlib.md5(
        json.dumps(words, default=str).encode(), usedforsecurity=False
    ).hexdigest()


def _run(run: RunRecord, topology: TopologyRecord, point: Point) -> dict[str, Any]:
    kind = point.any.mode
    found: dict[str, Any] = {
        "uid": _id(run.run_id, topology.name, point.workload, point.label),
        "eid": _id(run.run_id),
        "cid": _id(topology.identity, point.workload, point.label),
        "description": f"{topology.name}, {point.workload} {point.label}, {kind}",
        "keywords": ["pytest-pd", kind],
    }
    begun, ended = (topology.manifest.get(key) for key in ("created_s", "ended_s"))
    if begun and ended:
        found["time"] = {
            "start": datetime.fromtimestamp(begun, UTC).isoformat(),
            "end": datetime.fromtimestamp(ended, UTC).isoformat(),
            "duration": f"PT{ended - begun:.3f}S",
        }
    return found


def _engine(topology: TopologyRecord, pool: Pool) -> dict[str, Any]:
    plan = topology.plan
    return {
        "metadata": {
            "schema_version": "0.0.1",
            "label": pool.role,
            "cfg_id": _id(topology.identity, pool.role),
        },
        "standardized": {
            "kind": "inference_engine",
            "tool": str(plan.get("engine", "")),
            "tool_version": pool.image or "unknown",
            "role": HOSTS[pool.role],
            "replicas": pool.workers,
            "model": {"name": str(plan.get("served_model", ""))},
            "accelerator": {
                "model": str(plan.get("hardware", "")),
                "count": pool.gpus // pool.workers,
                "parallelism": {
                    "tp": pool.tp,
                    "pp": pool.pp,
                    "dp": pool.dp,
                    "ep": pool.ep,
                },
            },
        },
        "native": {"config": {"argv": list(pool.args)}},
    }


def _routers(topology: TopologyRecord) -> list[dict[str, Any]]:
    return [
        {
            "metadata": {
                "schema_version": "0.0.1",
                "label": str(service["name"]),
                "cfg_id": _id(topology.identity, service["name"]),
            },
            "standardized": {
                "kind": "generic",
                "tool": str(topology.plan.get("router", "")),
                "tool_version": str(service.get("image") or "unknown"),
            },
            "native": {"config": {"argv": [str(w) for w in service.get("argv", ())]}},
        }
        for service in topology.plan.get("services", ())
        if service.get("role") == "router"
    ]


def _load(point: Point) -> dict[str, Any]:
    info = point.any.info
    load: Mapping[str, Any] = point.any.load
    version = (info.get("versions") or {}).get("pytest-pd", "unknown")
    standardized: dict[str, Any] = {
        "tool": "pytest-pd",
        "tool_version": str(version),
        "source": "unknown",
        "input_seq_len": {
            "distribution": "other",
            "value": float(info.get("input_tokens_mean") or 0),
        },
        "output_seq_len": {
            "distribution": "other",
            "value": float(info.get("output_tokens_mean") or 0),
        },
    }
    if point.concurrency:
        standardized["concurrency"] = int(point.concurrency)
    if load.get("rate_per_s"):
        standardized["rate_qps"] = float(load["rate_per_s"])
    return {
        "metadata": {
            "schema_version": "0.0.1",
            "cfg_id": _id(point.workload, point.label),
            "description": f"{point.workload}:{point.label}",
        },
        "standardized": standardized,
        "native": {"config": dict(load)},
    }


def _requests(point: Point) -> dict[str, Any]:
    info = point.any.info
    outcomes: Mapping[str, Any] = info.get("outcomes") or {}
    total = int(info.get("requests") or sum(map(int, outcomes.values())))
    found: dict[str, Any] = {
        "total": total,
        "failures": total - int(outcomes.get("ok", total)),
    }
    for ours, theirs in (("input", "input_length"), ("output", "output_length")):
        mean = info.get(f"{ours}_tokens_mean")
        if mean is not None:
            found[theirs] = {"units": "count", "mean": float(mean)}
    return found


def _latency(point: Point) -> dict[str, Any]:
    found = {}
    for metric, (name, units) in LATENCIES.items():
        if metric in point.entries:
            known = point.entries[metric].statistics()
            told = {STATISTICS[k]: v for k, v in known.items() if k in STATISTICS}
            found[name] = {"units": units, **told}
    return found


def _throughput(point: Point) -> dict[str, Any]:
    rates = {
        "output_token_rate": ("tokens/s", point.tokens_per_s),
        "request_rate": ("queries/s", point.human("request_time", "requests_per_s")),
    }
    return {
        name: {"units": units, "mean": value}
        for name, (units, value) in rates.items()
        if value is not None
    }
