"""Rows as InferenceX aggregates them, one JSON object for each point. Pure.

Source: ``utils/process_result.py`` and the reader ``benchmark-mapper.ts`` of
InferenceX: schema 2, with fields of prefill and decode. There is no schema file;
`problems_of` holds what the reader refuses or would misread.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_pd.errors import MeasurementError
from pytest_pd.report.points import Point, points_of
from pytest_pd.report.read import RunRecord, TopologyRecord
from pytest_pd.report.setup import Pool, asked_for, pools_of
from pytest_pd.report.write import Content, file_word

STATISTICS = {"mean": "mean", "p50": "median", "p90": "p90", "p99": "p99"}
METRICS = {"ttft": "ttft", "tpot": "tpot", "itl": "itl", "e2e": "e2el"}
FLAGS = ("disagg", "is_multinode", "prefill_dp_attention", "decode_dp_attention")
WORDS = ("hw", "model", "framework", "precision", "spec_decoding")
COUNTS = (
    *("isl", "osl", "conc", "prefill_tp", "prefill_ep", "prefill_num_workers"),
    *("decode_tp", "decode_ep", "decode_num_workers"),
    *("num_prefill_gpu", "num_decode_gpu"),
)


def inferencex_files(runs: Sequence[RunRecord]) -> dict[str, Content]:
    """Return ``agg_*.json`` for every closed-loop point that holds, and all in one.

    Raises:
        MeasurementError: no point can be such a row: it takes GPUs and a closed loop.
    """
    rows: dict[str, dict[str, Any]] = {}
    for run in runs:
        topologies = {topology.name: topology for topology in run.topologies}
        for point in points_of([run]):
            row = inferencex_row(topologies[point.topology], point)
            if row is not None:
                words = (run.run_id, point.topology, point.workload, point.label)
                rows["_".join(map(file_word, words))] = row
    if not rows:
        raise MeasurementError(
            "No point of the runs can be an InferenceX row.",
            hint="rows are per GPU: they need closed-loop points on GPUs that hold",
        )
    files: dict[str, Content] = {
        f"inferencex/agg_{name}.json": json.dumps(row, indent=2) + "\n"
        for name, row in rows.items()
    }
    everything = json.dumps([*rows.values()], indent=2) + "\n"
    return files | {"inferencex/results_bmk.json": everything}


def inferencex_row(topology: TopologyRecord, point: Point) -> dict[str, Any] | None:
    """Return the row of a point; None where it has no GPUs, no streams, no tokens."""
    pools = {pool.role: pool for pool in pools_of(topology)}
    output = point.tokens_per_s
    if not (point.is_valid and point.concurrency and point.gpus and output and pools):
        return None
    row = {**_identity(topology, point, pools), **_sizes(pools)}
    requests = point.human("request_time", "requests_per_s") or 0.0
    read = requests * float(point.any.info.get("input_tokens_mean") or 0)
    prefill, decode = row["num_prefill_gpu"], row["num_decode_gpu"]
    row |= {
        "tput_per_gpu": (output + read) / point.gpus,
        "output_tput_per_gpu": output / decode,
        "input_tput_per_gpu": read / prefill,
        **_latencies(point),
    }
    problems = problems_of(row)
    if problems:
        raise MeasurementError(
            f"The row of {point.topology} {point.label} breaks the format: "
            f"{'; '.join(problems)}."
        )
    return row


def _identity(
    topology: TopologyRecord, point: Point, pools: Mapping[str, Pool]
) -> dict[str, Any]:
    info, plan, asked = point.any.info, topology.plan, asked_for(topology.folder)
    nodes = frozenset().union(*(pool.nodes for pool in pools.values()))
    first = next(iter(pools.values()))
    model = asked.get("model") or {}
    speculative = (asked.get("decode") or {}).get("speculative") or {}
    return {
        "hw": str(plan.get("hardware", "")),
        "conc": int(point.concurrency or 0),
        "image": first.image.replace("/", "#"),
        "model": str(plan.get("served_model", "")),
        "infmax_model_prefix": str(model.get("ref") or plan.get("served_model", "")),
        "framework": str(plan.get("engine", "")),
        "precision": str(model.get("precision") or "unknown"),
        "spec_decoding": str(speculative.get("method") or "none"),
        "disagg": "prefill" in pools,
        "is_multinode": len(nodes) > 1,
        "isl": round(float(info.get("input_tokens_mean") or 0)),
        "osl": round(float(info.get("output_tokens_mean") or 0)),
        "router": {"name": str(plan.get("router", "")), "version": "unknown"},
        "recipe_fingerprint": topology.identity,
    }


def _sizes(pools: Mapping[str, Pool]) -> dict[str, Any]:
    """Return sizes by phase; aggregated workers are both, and count as no worker."""
    found: dict[str, Any] = {}
    for phase in ("prefill", "decode"):
        pool = pools.get(phase) or pools["aggregated"]
        found[f"{phase}_tp"] = pool.tp
        found[f"{phase}_ep"] = pool.ep
        found[f"{phase}_dp_attention"] = pool.attention_dp or pool.dp > 1
        found[f"{phase}_num_workers"] = pool.workers if phase in pools else 0
        found[f"num_{phase}_gpu"] = pool.gpus
    return found


def _latencies(point: Point) -> dict[str, float]:
    """Return seconds, and interactivity: tokens per second of one user."""
    found = {}
    for metric, theirs in METRICS.items():
        for name, word in STATISTICS.items():
            value = point.statistic_s(metric, name)
            if value is not None:
                found[f"{word}_{theirs}"] = value
                if theirs == "tpot" and value > 0:
                    found[f"{word}_intvty"] = 1 / value
    return found


def problems_of(row: Mapping[str, Any]) -> list[str]:
    """Return what the reader would refuse or misread; empty for a good row."""
    found = [f"{key} is no text" for key in WORDS if not isinstance(row.get(key), str)]
    found += [f"{key} is empty" for key in WORDS if row.get(key) == ""]
    found += [f"{k} is no flag" for k in FLAGS if not isinstance(row.get(k), bool)]
    for key in COUNTS:
        value = row.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            found.append(f"{key} is no count")
        elif value == 0 and not key.endswith("num_workers"):
            found.append(f"{key} is 0")
    rates = ("tput_per_gpu", "output_tput_per_gpu", "input_tput_per_gpu")
    found += [f"{k} is not above 0" for k in rates if not _is_above_0(row.get(k))]
    return found


def _is_above_0(value: object) -> bool:
    return isinstance(value, float) and value > 0
