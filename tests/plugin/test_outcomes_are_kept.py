"""How each test ended lies in the run's folder while the run still goes."""

from __future__ import annotations

import json

import pytest

SUITE = """
import os
from pathlib import Path

import pytest
from pytest_pd.errors import InvalidRun

def test_good(deployment): pass
def test_bad(deployment): assert 1 == 2, "my own words"
def test_no_conclusion(deployment): raise InvalidRun("rate was 3 of 10.")
def test_left(deployment): pytest.skip("not today")
"""


def outcomes(project):
    (path,) = project.pytester.path.glob("runs/*/results.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_test_has_verdict_and_reason(project):
    project.suite(SUITE)

    project.run()

    found = {o["nodeid"].split("::")[1].split("[")[0]: o for o in outcomes(project)}
    assert {name: o["verdict"] for name, o in found.items()} == {
        "test_good": "passed",
        "test_bad": "failed",
        "test_no_conclusion": "invalid",
        "test_left": "skipped",
    }
    assert found["test_good"]["reason"] == ""
    assert "my own words" in found["test_bad"]["reason"]
    assert found["test_no_conclusion"]["reason"] == "rate was 3 of 10."
    assert found["test_left"]["reason"] == "not today"


def test_killed_session_leaves_what_was_told(project):
    project.suite(
        "import os\n"
        "def test_good(deployment): pass\n"
        "def test_kill(deployment): os.kill(os.getpid(), 9)\n"
    )

    project.run()

    assert [o["verdict"] for o in outcomes(project)] == ["passed"]


def test_xdist_keeps_each_outcome_once(project):
    project.suite(SUITE)

    project.run("-n", "2")

    assert len(outcomes(project)) == 4


def test_report_lies_beside_them(project):
    project.suite(SUITE)

    result = project.run()

    (page,) = project.pytester.path.glob("runs/*/report.html")
    assert "my own words" in page.read_text()
    result.stdout.fnmatch_lines([f"pd: report {page}"])
    assert "1 failed, 1 invalid" in (page.parent / "summary.md").read_text()


@pytest.mark.parametrize(
    ("taken", "told"),
    [("results.jsonl", "*Is a directory*"), ("verdict.json.partial", "verdict.json *")],
)
def test_what_cannot_be_kept_is_told_and_never_green(project, taken, told):
    project.suite(
        "from pathlib import Path\n"
        f"def test_good(deployment): Path('run/{taken}').mkdir()\n"
    )

    result = project.run("--pd-run-dir", "run")

    assert result.ret == 1
    result.stdout.fnmatch_lines([f"pd: results cannot be kept: {told}"])
    assert "INTERNALERROR" not in result.stdout.str()


def test_an_entry_that_cannot_be_kept_fails_its_test(project):
    project.suite(
        "from pathlib import Path\n"
        "from pytest_pd.measure.measurement import Measurement\n"
        "def test_good(deployment, record, topology):\n"
        "    Path(f'run/{topology.name}/entries.jsonl').mkdir(parents=True)\n"
        "    record([Measurement('x', (0.5,), unit='s')])\n"
    )

    result = project.run("--pd-run-dir", "run")

    assert result.ret == 1
    result.stdout.fnmatch_lines(["*What was measured cannot be kept:*directory*"])
    assert "INTERNALERROR" not in result.stdout.str()
