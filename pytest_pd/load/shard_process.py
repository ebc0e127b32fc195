"""A load process of its own: told by standard input, heard by standard output."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from pytest_pd.errors import PdError
from pytest_pd.load.engine import Counters
from pytest_pd.load.gpu import GpuReport, watched_gpus
from pytest_pd.load.point import LoadPoint
from pytest_pd.load.prompts import Prompt
from pytest_pd.load.run import make_result
from pytest_pd.load.shard import Job, Share, make_recorder, run_share
from pytest_pd.load.shards import boot_id
from pytest_pd.load.target import Target

TICK_EVERY = 2
"""Of the loop's 10 ticks a second, every second is told."""


def receive() -> dict[str, Any] | None:
    """Return the next message, None when nobody will send one any more."""
    line = sys.stdin.buffer.readline()
    if not line:
        return None
    message: dict[str, Any] = json.loads(line)
    return message


def send(message: dict[str, Any], blob: bytes = b"") -> None:
    sys.stdout.buffer.write(json.dumps(message).encode() + b"\n" + blob)
    sys.stdout.buffer.flush()


def read_job(message: dict[str, Any]) -> tuple[Job, Share]:
    """Return the job and this shard's share of it; prompts of others are empty."""
    ca_file = message["target"].pop("ca_file")
    target = Target(**message["target"], ca_file=Path(ca_file) if ca_file else None)
    point = LoadPoint(**message["point"])
    mine = {int(k): prompt for k, prompt in message["prompts"].items()}
    for prompt in mine.values():
        prompt["token_ids"] = tuple(prompt["token_ids"])
    blank = Prompt(output_tokens=0)
    prompts = [
        Prompt(**mine[k]) if k in mine else blank for k in range(message["rows"])
    ]
    share = Share(
        point=point,
        indices=tuple(message["indices"]),
        offsets_ns=np.array(message["offsets_ns"], np.int64),
        concurrency=message["concurrency"],
        warmup=message["warmup"],
        number=message["number"],
    )
    return Job(target, point, tuple(prompts)), share


def wait_start() -> int:
    """Say that all is ready and return the common start.

    Raises:
        SystemExit: the harness is gone.
    """
    send({"ready": True})
    message = receive()
    if message is None:
        raise SystemExit(1)
    return int(message["start_ns"])


def run(message: dict[str, Any]) -> None:
    job, share = read_job(message)
    recorder = make_recorder(job.prompts, None)
    ticks = 0

    def on_tick(counters: Counters) -> None:
        nonlocal ticks
        ticks += 1
        if ticks % TICK_EVERY == 0:
            send({"tick": dataclasses.asdict(counters)})

    watches = message["watches_gpus"]
    with watched_gpus(judged=job.target.gpus) if watches else nullcontext() as gpus:
        outcome = run_share(
            job.target,
            share,
            job.prompts,
            recorder,
            engine=message["engine"],
            scheduling=message["scheduling"],
            wait_start=wait_start,
            on_tick=on_tick,
        )
    sink = io.BytesIO()
    make_result(job, recorder, [outcome], "", time.time()).write(sink)
    blob = sink.getvalue()
    plain = {
        "bytes": len(blob),
        "counters": dataclasses.asdict(outcome.counters),
        "host": dataclasses.asdict(outcome.host),
        "clock_steps": outcome.clock_steps,
        "engine": outcome.engine,
        "scheduling": outcome.scheduling,
        "gpus": dataclasses.asdict(gpus.report() if gpus else GpuReport()),
    }
    send(plain, blob)


def calibrated(message: dict[str, Any]) -> dict[str, Any]:
    """Return the error of the instrument on this machine, or why there is none."""
    from pytest_pd.load.calibrate import Rhythm, calibrate

    rhythm = Rhythm(**message["calibrate"])
    try:
        found = calibrate(rhythm, duration_s=message["duration_s"])
    except PdError as error:
        return {"error": str(error)}
    return {"calibration": found.as_json()}


def main() -> int:
    """Do what is asked, one thing after the other, until nobody asks any more."""
    while (message := receive()) is not None:
        if "ping" in message:
            send({"clock_ns": time.monotonic_ns(), "boot_id": boot_id()})
        elif "calibrate" in message:
            send(calibrated(message))
        else:
            run(message)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
