"""The folder of nights: each writes down its tests, their times and its verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytest_pd.files import write_whole
from pytest_pd.nightly.budget import NightTimes, times_of
from pytest_pd.nightly.judgement import Attempt, Judgement, Verdict, tells_time

RECORD = "nightly.json"
TELLING_TIME = ("passed", "failed", "invalid", "skipped")
"""Verdicts of tests that took the time they take; the others stopped on the way."""


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
                "queued_s": round(attempt.queued_s, 3),
                "tells_time": tells_time(attempt),
                "times": [
                    [o.nodeid, o.topology, round(o.duration_s, 4)]
                    for o in attempt.outcomes
                    if o.verdict in TELLING_TIME
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
    write_whole(path, json.dumps(record, indent=1))


def read_times(nights: Path) -> list[NightTimes]:
    """Return the times of the first attempts of earlier nights, newest last.

    Only of those that say how long tests take: see `tells_time`.
    """
    found = []
    for record in _records(nights):
        with suppress(KeyError, IndexError, TypeError, ValueError):
            first = record["attempts"][0]
            if first["tells_time"]:
                rows = [(str(t), str(n), float(s)) for t, n, s in first["times"]]
                wall_s, queued_s = float(first["wall_s"]), float(first["queued_s"])
                found.append(times_of(wall_s, rows, queued_s))
    return found


def newest_was_stopped(nights: Path) -> bool:
    """Tell whether the newest night was refused, or cut by its budget or limit.

    Then what earlier nights tell was too little, and may not stop the next one too.
    Nights that never began say nothing.
    """
    for record in reversed(_records(nights)):
        with suppress(KeyError, TypeError):
            if record["verdict"] == Verdict.REFUSED:
                return True
            if record["attempts"]:
                return any(attempt["cut"] for attempt in record["attempts"])
    return False


def _records(nights: Path) -> list[Any]:
    """Return the records of all nights that can be read, newest last."""
    found = []
    for path in sorted(nights.glob(f"*/{RECORD}")):
        with suppress(OSError, ValueError):
            found.append(json.loads(path.read_text(encoding="utf-8")))
    return found
