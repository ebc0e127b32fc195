"""Run the suites against every fault and keep what turned red.

    python benchmarks/power/run.py                       # all that is not yet there
    python benchmarks/power/run.py --only kv-swap-pull,no-done
    python benchmarks/power/run.py --clean 20            # 20 runs without a fault
    python benchmarks/power/run.py --for 170             # stop after 170 s, go on later
    python benchmarks/power/page.py                      # write docs/reference/power.md

A case is run again when its row is absent or `--again` is given. Rows go to
``results.jsonl`` beside this file, one JSON object per run, each with its commit,
time and load; clean runs to ``clean.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import yaml  # noqa: E402

from benchmarks.power.cases import ACCURACY, ALIVE, CASES, Case, topology_of  # noqa: E402
from pytest_pd.report.outcome import TestOutcome, settled  # noqa: E402

RESULTS = Path(__file__).with_name("results.jsonl")
CLEAN = Path(__file__).with_name("clean.jsonl")
SUITES = ("suites/correctness",)
BASIC = (
    "test_whole_answer",
    "test_stream_ends_with_done_and_usage",
    "test_streams_bring_every_token_once",
    "test_answers_are_right",
)
LIMIT_S = 400.0
BAD = ("failed", "invalid", "error", "blocked")


def main() -> int:
    args = arguments()
    end_s = time.monotonic() + args.seconds
    if args.clean:
        return clean_runs(args.clean, args.base, end_s)
    wanted = set(args.only.split(",")) if args.only else None
    done = set() if args.again or wanted else {row["case"] for row in rows(RESULTS)}
    part, parts = map(int, args.part.split("/"))
    for case in CASES[part::parts]:
        if (wanted and case.id not in wanted) or case.id in done:
            continue
        if time.monotonic() > end_s:
            print("time is over; start again to go on")
            break
        row = one(case, focus=args.focus)
        keep(RESULTS, row)
        print(f"{case.id:26} {row['wall_s']:6.1f} s  {summary(case, row)}", flush=True)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="comma list of cases")
    parser.add_argument("--again", action="store_true", help="run all cases anew")
    parser.add_argument("--clean", type=int, default=0, help="runs without a fault")
    parser.add_argument("--base", default="", help="of clean runs; else each in turn")
    parser.add_argument("--part", default="0/1", help="1/3: each third, from 1")
    parser.add_argument(
        "--focus", action="store_true", help="run the checks that must catch and BASIC"
    )
    parser.add_argument("--for", dest="seconds", type=float, default=1e9)
    return parser.parse_args()


def clean_runs(count: int, base: str, end_s: float) -> int:
    """Run the correctness suites without a fault; return how many runs were red."""
    bases = [base] if base else ["files", "pull", "pairs", "sessions"]
    red = 0
    for index in range(count):
        if time.monotonic() > end_s:
            break
        chosen = bases[index % len(bases)]
        row = measure(topology_of(None, chosen), list(SUITES))
        keep(CLEAN, {"base": chosen, **row})
        red += bool(row["red"]) or row["exit"] != 0
        print(f"clean {chosen:9} {row['wall_s']:6.1f} s  {row['red'] or 'green'}")
    return red


def one(case: Case, *, focus: bool) -> dict[str, Any]:
    """Run one case and return its row."""
    checks = sorted({*BASIC, *case.must} - {ALIVE}) if focus else []
    checks = list(case.must) if case.alone else checks
    row = measure(topology_of(case), [*SUITES, *case.more], checks)
    return {"case": case.id, "focus": focus or case.alone, **row}


def measure(
    topology: Mapping[str, Any], suites: Sequence[str], checks: Sequence[str] = ()
) -> dict[str, Any]:
    """Run suites on a topology and return what happened in each check."""
    begun_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pd-power-") as name:
        folder = Path(name)
        (folder / "faulty.yaml").write_text(yaml.safe_dump(dict(topology)))
        code = run_pytest(folder, suites, checks)
        wall_s = time.monotonic() - begun_s
        outcomes = read_outcomes(folder / "run" / "results.jsonl")
    return {
        "commit": commit(),
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "load": round(os.getloadavg()[0], 1),
        "wall_s": round(wall_s, 1),
        "exit": code,
        "detect_s": detect_s(outcomes),
        "red": red_checks(outcomes),
        "cells": cells(outcomes),
    }


def run_pytest(folder: Path, suites: Sequence[str], checks: Sequence[str]) -> int:
    """Run pytest in `folder`; 124 when it was ended for taking too long."""
    argv = [sys.executable, "-m", "pytest", *(str(ROOT / suite) for suite in suites)]
    argv += ["--pd-topology", str(folder / "faulty.yaml")]
    accuracy = any(ACCURACY in str(suite) for suite in suites)
    level = "standard" if accuracy else "quick"
    argv += ["--pd-run-dir", str(folder / "run"), "--pd-level", level]
    argv += ["--pd-share-nodes", "-p", "no:cacheprovider", "-p", "no:randomly", "-q"]
    argv += ["-k", " or ".join(checks)] if checks else []
    marks = "correctness or accuracy or fault"
    argv += ["-m", marks] if any("resilience" in str(s) for s in suites) else []
    with (folder / "out.txt").open("wb") as sink:
        child = subprocess.Popen(argv, cwd=folder, stdout=sink, stderr=sink)
        try:
            return child.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            child.terminate()
            child.wait(60)
            return 124


def read_outcomes(path: Path) -> list[TestOutcome]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [TestOutcome.from_record(json.loads(line)) for line in lines]


def check_of(outcome: TestOutcome) -> str:
    """Return the check: the test function, or bring-up where no test was begun.

    A topology that broke is told by the first test that wanted it.
    """
    if outcome.verdict in ("error", "blocked") and outcome.when == "setup":
        return ALIVE
    return outcome.nodeid.rpartition("::")[2].partition("[")[0]


def cells(outcomes: Sequence[TestOutcome]) -> dict[str, dict[str, Any]]:
    """Return per check its worst verdict, its seconds, and why it was red."""
    found: dict[str, dict[str, Any]] = {}
    for outcome in settled(outcomes):
        check = check_of(outcome)
        cell = found.setdefault(check, {"verdict": "skipped", "s": 0.0})
        cell["s"] = round(cell["s"] + outcome.duration_s, 2)
        if rank(outcome.verdict) > rank(cell["verdict"]):
            cell["verdict"] = outcome.verdict
            if outcome.verdict in BAD:
                cell["why"] = outcome.reason[:200]
    return found


def rank(verdict: str) -> int:
    """Return how much a verdict says: skipped, passed, then what is not green."""
    order = ("skipped", "passed", *BAD)
    return order.index(verdict) if verdict in order else len(order)


def red_checks(outcomes: Sequence[TestOutcome]) -> list[str]:
    bad = [o for o in settled(outcomes) if o.verdict in BAD]
    return sorted({check_of(outcome) for outcome in bad})


def detect_s(outcomes: Sequence[TestOutcome]) -> float | None:
    """Return the seconds of tests up to the end of the first red one."""
    passed_s = 0.0
    for outcome in outcomes:
        passed_s += outcome.duration_s
        if outcome.verdict in BAD:
            return round(passed_s, 2)
    return None


def summary(case: Case, row: Mapping[str, Any]) -> str:
    """Return one line: caught as it must be, or not."""
    missed = sorted(set(case.must) - set(row["red"]))
    if missed:
        return f"MISSED BY {', '.join(missed)}; red: {', '.join(row['red']) or '-'}"
    if not row["red"]:
        return "blind" if case.blind else "NOT CAUGHT"
    return f"caught by {len(row['red'])}"


def keep(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row and bring it to disk: a killed run keeps what it has."""
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def rows(path: Path) -> list[dict[str, Any]]:
    return (
        [json.loads(line) for line in path.read_text().splitlines()]
        if (path.exists())
        else []
    )


def commit() -> str:
    """Return the commit, with ``+`` behind it when the checks differ from it."""
    short = git("rev-parse", "--short", "HEAD")
    own = ("pytest_pd", "suites", "fixtures")
    return short + ("+" if git("status", "--porcelain", "--", *own) else "")


def git(*words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


if __name__ == "__main__":
    raise SystemExit(main())
