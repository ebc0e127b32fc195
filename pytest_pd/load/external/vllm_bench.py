"""``vllm bench serve`` with ``--save-detailed``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pytest_pd.errors import MeasurementError
from pytest_pd.load.external.foreign import UNREADABLE, ForeignRequest, from_gaps
from pytest_pd.load.point import Arrivals, LoadPoint
from pytest_pd.load.prompts import Lengths
from pytest_pd.load.target import Target

RESULT = "vllm-bench.json"
DETAIL = ("ttfts", "itls", "start_times", "input_lens", "output_lens")


def command(
    program: str,
    target: Target,
    point: LoadPoint,
    lengths: Lengths,
    tokenizer: Path,
    output: Path,
) -> list[str]:
    """Return the words of a run."""
    backend = "openai-chat" if target.is_chat else "openai"
    words = [program, "bench", "serve", "--backend", backend]
    words += ["--base-url", target.url, "--endpoint", target.endpoint]
    words += ["--model", target.model, "--tokenizer", str(tokenizer)]
    words += ["--dataset-name", "random", "--seed", str(point.seed)]
    words += ["--random-input-len", str(lengths.input_tokens)]
    words += ["--random-output-len", str(lengths.output_tokens)]
    words += ["--num-prompts", str(point.requests or 100), "--disable-tqdm"]
    words += ["--save-result", "--save-detailed", "--result-filename", RESULT]
    words += ["--result-dir", str(output)]
    if point.concurrency is not None:
        words += ["--max-concurrency", str(point.concurrency)]
    if point.rate_per_s is not None:
        words += ["--request-rate", f"{point.rate_per_s:g}"]
        shape = point.burstiness if point.arrivals is Arrivals.GAMMA else 1
        words += ["--burstiness", f"{shape:g}"]
    return [*words, "--ignore-eos"] if target.ignore_eos else words


def read(output: Path) -> list[ForeignRequest]:
    """Return the requests of the result file in `output`.

    Its start time is taken behind the semaphore of ``--max-concurrency``: what a
    request waited in the client is in ``queue_times``, where that is written.

    Raises:
        MeasurementError: no file, or one without ``--save-detailed``.
    """
    path = output if output.is_file() else output / RESULT
    try:
        return _requests(json.loads(path.read_text()))
    except UNREADABLE as error:
        raise MeasurementError(
            f"No detailed result of vllm bench: {type(error).__name__} {error}.",
            hint="run it with --save-result --save-detailed",
            where=path,
        ) from error


def _requests(found: dict[str, Any]) -> list[ForeignRequest]:
    columns = [found[name] for name in DETAIL]
    count = len(columns[0])
    errors = found.get("errors") or [""] * count
    texts = found.get("generated_texts") or [""] * count
    queues = found.get("queue_times") or [0.0] * count
    rows = zip(*columns, errors, texts, queues, strict=True)
    return [
        ForeignRequest(
            start_s=float(start),
            event_s=() if error else from_gaps(ttft, gaps),
            input_tokens=int(size),
            output_tokens=int(output_size),
            queue_s=float(queue),
            text=str(text),
            error=str(error or ""),
        )
        for ttft, gaps, start, size, output_size, error, text, queue in rows
    ]
