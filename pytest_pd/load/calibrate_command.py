"""Measure the instrument itself: its error against a server of known truth.

examples:
  pytest-pd calibrate
  pytest-pd calibrate --concurrency 64 --itl-ms 20 --ttft-ms 100
  pytest-pd calibrate --engine httpx --json calibration.json
  pytest-pd calibrate --concurrency 256 --shards 2 --seconds 5
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_pd.load.calibrate import Calibration, Rhythm, calibrate
from pytest_pd.load.option import (
    above_zero,
    check_file,
    seconds,
    shards,
    streams,
    tokens,
    write_json,
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``pytest-pd calibrate``."""
    add = parser.add_argument
    add("--concurrency", type=streams, default=16, help="streams in flight")
    add("--ttft-ms", type=above_zero, default=100.0, help="true time to first token")
    add("--itl-ms", type=above_zero, default=20.0, help="true time between tokens")
    add("--output-tokens", type=tokens, default=150)
    add("--seconds", type=seconds, default=4.0, help="about how long to measure")
    add("--engine", choices=("auto", "kernel", "httpx"), default="auto")
    add("--shards", type=shards, default=1, help="load processes")
    add("--scheduling", choices=("auto", "normal"), default="auto")
    add("--json", type=Path, metavar="FILE")


def run(args: argparse.Namespace) -> int:
    """Print the error in one line, and what it was measured on."""
    if args.json:
        check_file(args.json)
    rhythm = Rhythm(
        concurrency=args.concurrency,
        ttft_s=args.ttft_ms / 1e3,
        itl_s=args.itl_ms / 1e3,
        output_tokens=args.output_tokens,
        shards=args.shards,
    )
    found = calibrate(
        rhythm,
        duration_s=args.seconds,
        engine=args.engine,
        shards=args.shards,
        scheduling=args.scheduling,
    )
    try:
        if args.json:
            write_json(args.json, found.as_json())
    finally:
        _show(found)
    return 0


def _show(found: Calibration) -> None:
    print(found.line())
    print(
        f"{found.requests} requests, {found.events} events; gaps of events that had "
        f"a read of their own: p99 {found.itl_alone.p99_s * 1e6:.3g} us; a client "
        f"that stamps in user space would have added p99 "
        f"{found.read_lag_p99_s * 1e6:.3g} us; the server itself was late by p99 "
        f"{found.server_late_p99_s * 1e6:.3g} us, which is no part of the error"
    )
