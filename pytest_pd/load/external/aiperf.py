"""``aiperf profile``, the successor of genai-perf: its profile_export.jsonl."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_pd.errors import MeasurementError
from pytest_pd.load.external.foreign import UNREADABLE, ForeignRequest, from_gaps
from pytest_pd.load.point import Arrivals, LoadPoint
from pytest_pd.load.prompts import Lengths
from pytest_pd.load.target import Target

RESULT = "profile_export.jsonl"


def command(
    program: str,
    target: Target,
    point: LoadPoint,
    lengths: Lengths,
    tokenizer: Path,
    output: Path,
) -> list[str]:
    """Return the words of a run."""
    kind = "chat" if target.is_chat else "completions"
    words = [program, "profile", "--model", target.model, "--url", target.url]
    words += ["--endpoint-type", kind, "--streaming", "--tokenizer", str(tokenizer)]
    words += ["--isl", str(lengths.input_tokens), "--osl", str(lengths.output_tokens)]
    words += ["--ui-type", "none", "--no-gpu-telemetry", "--no-server-metrics"]
    words += ["--random-seed", str(point.seed), "--artifact-dir", str(output)]
    if target.ignore_eos:
        words += ["--extra-inputs", "ignore_eos:true"]
    if point.duration_s is not None:
        words += ["--benchmark-duration", f"{point.duration_s:g}"]
    else:
        words += ["--request-count", str(point.requests or 100)]
    return [*words, *_pace(point)]


def _pace(point: LoadPoint) -> list[str]:
    if point.rate_per_s is None:
        return ["--concurrency", str(point.concurrency)]
    words = ["--request-rate", f"{point.rate_per_s:g}"]
    words += ["--arrival-pattern", point.arrivals.value]
    if point.arrivals is Arrivals.GAMMA:
        words += ["--arrival-smoothness", f"{point.burstiness:g}"]
    return words


def read(output: Path) -> list[ForeignRequest]:
    """Return the profiled requests; its own warm-up is left out.

    Raises:
        MeasurementError: no export, or one that cannot be read.
    """
    path = output if output.is_file() else output / RESULT
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        found = [json.loads(line) for line in lines if line.strip()]
        return [
            _request(entry)
            for entry in found
            if entry["metadata"].get("benchmark_phase", "profiling") == "profiling"
        ]
    except UNREADABLE as error:
        raise MeasurementError(
            f"No export of aiperf that can be read: {type(error).__name__} {error}.",
            where=path,
        ) from error


def _request(entry: dict[str, Any]) -> ForeignRequest:
    metadata, metrics = entry["metadata"], entry.get("metrics") or {}
    start_ns = int(metadata["request_start_ns"])
    queued_ns = start_ns - int(metadata.get("credit_issued_ns") or start_ns)
    error = entry.get("error") or ("cancelled" if metadata["was_cancelled"] else "")
    blank = ForeignRequest(
        start_s=start_ns / 1e9,
        event_s=(),
        input_tokens=0,
        output_tokens=0,
        queue_s=queued_ns / 1e9,
        error=str(error),
    )
    if error:
        return blank
    gaps = metrics.get("inter_chunk_latency", {}).get("value") or []
    return replace(
        blank,
        event_s=from_gaps(_ms(metrics, "time_to_first_token"), [g / 1e3 for g in gaps]),
        input_tokens=int(metrics["input_sequence_length"]["value"]),
        output_tokens=int(metrics["output_sequence_length"]["value"]),
        connect_s=_ms(metrics, "http_req_connecting"),
    )


def _ms(metrics: dict[str, Any], name: str) -> float:
    found = metrics.get(name)
    return float(found["value"]) / 1e3 if found else 0.0
