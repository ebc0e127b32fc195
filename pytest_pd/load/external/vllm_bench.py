"""``vllm bench serve`` with ``--save-detailed``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pytest_pd.errors import MeasurementError
from pytest_pd.load.external.foreign import ForeignRequest, from_gaps
from pytest_pd.load.point import LoadPoint
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
    """Return the words of a run; headers go by ``--header`` and may be seen."""
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
        words += ["--burstiness", f"{point.burstiness:g}"]
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
        found: dict[str, Any] = json.loads(path.read_text())
        columns = [found[name] for name in DETAIL]
    except (OSError, ValueError, KeyError) as error:
        raise MeasurementError(
            f"No detailed result of vllm bench: {error}.",
            hint="run it with --save-result --save-detailed",
            where=path,
        ) from error
    count = len(columns[0])
    errors = found.get("errors") or [""] * count
    texts = found.get("generated_texts") or [""] * count
    queues = found.get("queue_times") or [0.0] * count
    return [
        ForeignRequest(
            start_s=start,
            event_s=() if errors[k] else from_gaps(ttft, gaps),
            input_tokens=int(size),
            output_tokens=int(output_size),
            queue_s=float(queues[k]),
            text=texts[k],
            error=errors[k] or "",
        )
        for k, (ttft, gaps, start, size, output_size) in enumerate(
            zip(*columns, strict=True)
        )
    ]
