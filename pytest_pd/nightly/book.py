"""The folder of nights: each writes down its tests, their times and its verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytest_pd.nightly.budget import NightTimes, times_of
from pytest_pd.nightly.judgement import Attempt, Judgement

RECORD = "nightly.json"


def record_of(
    judgement: Judgement, attempts: Sequence[Attempt], words: Sequence[str]
) -> dict[str, Any]:
    """Return what a night keeps, as plain JSON values."""
    return {
        "schema": "pytest-pd-night/1",
        "verdict": str(judgement.verdict),
        "layer": judgement.layer,
        "exit_code": judgement.exit_code,
        "arguments": list(words),
        "attempts": [
            {
                "exit_code": attempt.exit_code,
                "wall_s": round(attempt.wall_s, 3),
                "run_dir": attempt.run_dir,
                "gate": attempt.gate,
                "cut": attempt.cut,
                "times": [
                    [o.nodeid, o.topology, round(o.duration_s, 4)]
                    for o in attempt.outcomes
                ],
            }
            for attempt in attempts
        ],
        "tests": [outcome.as_record() for outcome in judgement.outcomes],
        "quarantined": [outcome.nodeid for outcome in judgement.quarantined],
        "flaky": dict(judgement.flaky),
        "notes": list(judgement.notes),
    }


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a night's record; a reader sees all of it or nothing."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1), encoding="utf-8")
    partial.replace(path)


def read_times(nights: Path) -> list[NightTimes]:
    """Return the times of the first attempts of earlier nights, newest last.

    Nights that were cut or interrupted say too little about how long tests take.
    """
    found = []
    for path in sorted(nights.glob(f"*/{RECORD}")):
        with suppress(OSError, ValueError, KeyError, IndexError, TypeError):
            first = json.loads(path.read_text(encoding="utf-8"))["attempts"][0]
            if not first["cut"] and first["exit_code"] in (0, 1):
                rows = [(str(t), str(n), float(s)) for t, n, s in first["times"]]
                found.append(times_of(float(first["wall_s"]), rows))
    return found
