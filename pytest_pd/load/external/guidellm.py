"""``guidellm run``: its JSON output holds first and last token of each request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pytest_pd.errors import MeasurementError
from pytest_pd.load.external.foreign import UNREADABLE, ForeignRequest
from pytest_pd.load.point import LoadPoint
from pytest_pd.load.prompts import Lengths
from pytest_pd.load.target import Target

RESULT = "guidellm.json"


def command(
    program: str,
    target: Target,
    point: LoadPoint,
    lengths: Lengths,
    tokenizer: Path,
    output: Path,
) -> list[str]:
    """Return the words of a run (guidellm 0.8)."""
    profile = f"kind=concurrent,streams={point.concurrency or 1}"
    if point.rate_per_s is not None:
        profile = f"kind={point.arrivals.value},rate={point.rate_per_s:g}"
    end = f"kind=max_requests,count={point.requests or 100}"
    if point.duration_s is not None:
        end = f"kind=max_duration,seconds={point.duration_s:g}"
    data = (
        f"kind=synthetic_text,prompt_tokens={lengths.input_tokens},"
        f"output_tokens={lengths.output_tokens}"
    )
    return [
        *(program, "run"),
        *("--backend", f"kind=openai_http,target={target.url},model={target.model}"),
        *("--profile", profile),
        *("--constraint", end),
        *("--tokenizer", f"kind=huggingface_auto,model={tokenizer}"),
        *("--data", data),
        *("--output", f"kind=json,path={output / RESULT}"),
        "--disable-console",
    ]


def read(output: Path) -> list[ForeignRequest]:
    """Return the requests of all benchmarks of the report in `output`.

    Raises:
        MeasurementError: no report, or one that cannot be read.
    """
    path = output if output.is_file() else output / RESULT
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        return [
            _request(entry, kind)
            for benchmark in found["benchmarks"]
            for kind in ("successful", "errored", "incomplete")
            for entry in benchmark["requests"].get(kind) or ()
        ]
    except UNREADABLE as error:
        raise MeasurementError(
            f"No report of guidellm that can be read: {type(error).__name__} {error}.",
            where=path,
        ) from error


def _request(entry: dict[str, Any], kind: str) -> ForeignRequest:
    timings = (entry.get("info") or {}).get("timings") or {}
    start_s = float(timings.get("request_start") or 0.0)
    marks = [
        float(timings[name]) - start_s
        for name in ("first_token_iteration", "last_token_iteration")
        if timings.get(name)
    ]
    events = tuple(dict.fromkeys(marks)) if kind == "successful" else ()
    queued_s = start_s - float(timings.get("resolve_start") or start_s)
    return ForeignRequest(
        start_s=start_s,
        event_s=events,
        input_tokens=_tokens(entry, "input_metrics"),
        output_tokens=_tokens(entry, "output_metrics"),
        queue_s=max(queued_s, 0.0),
        text=str(entry.get("output") or ""),
        error="" if kind == "successful" else kind,
    )


def _tokens(entry: dict[str, Any], side: str) -> int:
    return int((entry.get(side) or {}).get("total_tokens") or 0)
