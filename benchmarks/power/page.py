"""Write docs/reference/power.md from the rows of the fault matrix.

python benchmarks/power/page.py
python benchmarks/power/page.py --check     # fail unless the page is up to date
"""

from __future__ import annotations

import argparse
import ast
import statistics
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.power.cases import ALIVE, CASES, Case  # noqa: E402
from benchmarks.power.run import CLEAN, RESULTS, rows  # noqa: E402

PAGE = ROOT / "docs" / "reference" / "power.md"
SUITES = ("correctness", "accuracy", "resilience")
Row = Mapping[str, Any]

HEAD = """# What the suites catch

Every fault that can be switched on in the reference engine and in the proxy, and what
turned red. Each row is a run of the suites on a local topology with that fault, made
by `benchmarks/power/run.py`; the rows with all their cells are in
`benchmarks/power/results.jsonl`. This page is written by `benchmarks/power/page.py`.
Bold checks must catch the fault: without them the row is a failure. "Found after" is
the time of tests up to the end of the first red one, on two cores with the load that
is named. A row with * ran the checks that must catch its fault and a few basic ones;
the others ran all of `suites/correctness`. `bring_up` is no test: the topology did
not come up, or a service died.
"""

NEVER_RED: Mapping[str, str] = {
    "test_gpus_of_both_phases_work": "needs GPUs: skipped on these topologies",
    "test_kv_did_not_fall_back_to_tcp": "needs nodes whose fabric counts bytes; how it "
    "judges is held by `tests/unit/provision/test_wire_counters.py`",
    **dict.fromkeys(
        (
            "test_every_sample_is_scored",
            "test_score_is_what_is_expected",
            "test_no_score_is_lost_against_aggregated",
            "test_raw_answers_are_those_of_aggregated",
            "test_score_does_not_drift_over_the_requests",
        ),
        "needs lm-eval: damaged KV and its gates are tried by "
        "`benchmarks/evals/damage_trials.py`",
    ),
    "test_requests_go_on_elsewhere": "needs a router that promises migration: green on "
    "`dynamo_mock_2p2d`, red there without the frontend's `--migration-limit`",
}
"""Checks that no case turns red, and why; a test holds that there is no other."""


def latest() -> dict[str, Row]:
    """Return the last row of each case."""
    return {row["case"]: row for row in rows(RESULTS)}


def checks() -> dict[str, str]:
    """Return every check of the suites with its file, read from the source."""
    found = {}
    for suite in SUITES:
        for path in sorted((ROOT / "suites" / suite).glob("test_*.py")):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                    found[node.name] = f"{suite}/{path.name}"
    return found


def caught_by(found: Mapping[str, Row]) -> dict[str, list[str]]:
    """Return check to the cases in which it was red."""
    red: dict[str, list[str]] = {}
    for case, row in found.items():
        for check in row["red"]:
            red.setdefault(check, []).append(case)
    return red


def problems(found: Mapping[str, Row]) -> Iterator[str]:
    """Yield what the matrix lacks: rows, catches, checks that were never red."""
    for case in CASES:
        row = found.get(case.id)
        if row is None:
            yield f"{case.id}: has no row"
        elif missed := sorted(set(case.must) - set(row["red"])):
            yield f"{case.id}: not caught by {', '.join(missed)}"
        elif not row["red"] and not case.blind:
            yield f"{case.id}: caught by nothing, and no reason is given"
    red = caught_by(found)
    for check in checks():
        if check not in red and check not in NEVER_RED:
            yield f"{check}: red under no fault"


def write() -> str:
    """Return the page."""
    found = latest()
    return "\n".join([HEAD, *_faults(found), *_checks(found), *_clean()]) + "\n"


def _faults(found: Mapping[str, Row]) -> Iterator[str]:
    done = [found[case.id] for case in CASES if case.id in found]
    times = [row["detect_s"] for row in done if row["detect_s"] is not None]
    caught = sum(bool(row["red"]) for row in done)
    yield (
        f"{len(done)} of {len(CASES)} faults run, {caught} caught; first red after "
        f"{statistics.median(times):.1f} s (median) of tests.\n"
        if times
        else "No fault was run yet.\n"
    )
    yield "| fault | where | caught by | found after | reported by users |"
    yield "|---|---|---|---|---|"
    for case in CASES:
        if case.id in found:
            yield _fault(case, found[case.id])
    yield "\n## Blind spots\n"
    for case in CASES:
        if case.blind:
            yield f"- `{case.id}`: {case.blind}"
    yield ""


def _fault(case: Case, row: Row) -> str:
    named = [f"**{name}**" for name in case.must if name in row["red"]]
    others = [name for name in row["red"] if name not in case.must]
    shown = ", ".join(named + others[:3]) or "nothing: see below"
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    options = {k: v for k, v in case.fault.items() if k != "kind"}
    text = f"`{case.fault['kind']}`" + (f" {options}" if options else "")
    seconds = "-" if row["detect_s"] is None else f"{row['detect_s']:.1f} s"
    made = f"{row['commit']}, {row['utc'][:16]}, load {row['load']}"
    star = "*" if row.get("focus") else ""
    return (
        f"| `{case.id}`{star}: {text} | {case.place}, {case.base} | {shown}{more} | "
        f"{seconds} ({made}) | {case.reports or '-'} |"
    ).replace("test_", "")


def _checks(found: Mapping[str, Row]) -> Iterator[str]:
    red = caught_by(found)
    yield "## Checks\n\n| check | file | red under |\n|---|---|---|"
    for check, file in checks().items():
        cases = red.get(check, [])
        shown = ", ".join(f"`{name}`" for name in cases[:4])
        more = f" and {len(cases) - 4} more" if len(cases) > 4 else ""
        why = NEVER_RED.get(check, "nothing")
        yield f"| {check.removeprefix('test_')} | {file} | {shown + more or why} |"
    if ALIVE in red:
        yield f"| {ALIVE} | - | {', '.join(f'`{name}`' for name in red[ALIVE])} |"
    yield ""


def _clean() -> Iterator[str]:
    runs = rows(CLEAN)
    red = [row for row in runs if row["red"] or row["exit"] != 0]
    yield "## Without a fault\n"
    yield f"{len(runs)} runs of the correctness suites, {len(red)} of them red."
    for row in red:
        yield f"- {row['utc']} on {row['base']}: {', '.join(row['red'])}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    for line in problems(latest()):
        print(line)
    if args.check:
        return int(not PAGE.exists() or PAGE.read_text() != write())
    PAGE.write_text(write())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
