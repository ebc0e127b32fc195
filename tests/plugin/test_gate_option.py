"""``--pd-gate FILE`` makes a session red that got slower, and says why."""

from __future__ import annotations

from fnmatch import fnmatch

import pytest

SUITE = """
import os
from pytest_pd.measure.measurement import Measurement

def test_a(deployment, record):
    scale = float(os.environ.get("FAKE_SCALE", "1"))
    record([Measurement("ttft", tuple(scale * (0.1 + i / 1e4) for i in range(100)))])
"""


@pytest.fixture
def gated(project):
    project.suite(SUITE)
    for _ in range(2):
        project.run()
    text = "baseline: ['runs/*']\nmetrics: {ttft: {max_increase: 0.2}}\n"
    (project.pytester.path / "g.yaml").write_text(text)
    return project


def test_slower_session_is_red_and_equal_one_green(gated, monkeypatch):
    same = gated.run("--pd-gate", "g.yaml")
    monkeypatch.setenv("FAKE_SCALE", "3")
    slow = gated.run("--pd-gate", "g.yaml")

    assert same.ret == 0
    same.stdout.fnmatch_lines(["*pd: gate passed: 1 passed*"])
    assert slow.ret == 1
    slow.stdout.fnmatch_lines(["*pd: worse: *::ttft is 3.000*", "*pd: gate FAILED*"])


GATE = "baseline: ['{}']\nmetrics: {{ttft: {{max_increase: 0.2}}}}\n"


@pytest.mark.parametrize(
    ("chosen", "text", "told"),
    [
        ("nothing.yaml", None, "*nothing.yaml*"),
        ("~nosuchuser/g.yaml", None, "*nosuchuser*begins with a home folder*"),
        ("g.yaml", GATE.format("~nosuchuser/r"), "*nobody here has the home of*"),
        ("g.yaml", "baseline: 3\n", "*g.yaml:*"),
    ],
)
def test_a_wrong_gate_is_refused_before_anything_runs(project, chosen, text, told):
    project.suite(SUITE)
    if text:
        (project.pytester.path / "g.yaml").write_text(text)

    result = project.run("--pd-gate", chosen)

    assert result.ret == 4
    assert fnmatch(result.stdout.str() + result.stderr.str(), told)
    assert not project.ledger


def test_a_gate_that_breaks_costs_neither_verdict_nor_report(project):
    project.suite(
        SUITE + "\ndef test_b():\n    from pytest_pd.report import gated\n"
        "    gated.judge = lambda *_: {}['no such key']\n"
    )
    (project.pytester.path / "g.yaml").write_text(GATE.format("runs/*"))

    result = project.run("--pd-gate", "g.yaml", "-p", "no:randomly")

    assert result.ret == 1
    result.stdout.fnmatch_lines(["*pd: gate FAILED: KeyError: 'no such key'*"])
    (folder,) = project.pytester.path.glob("runs/*")
    assert {"verdict.json", "report.html"} <= {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("pattern", "code", "told"),
    [
        ("runs/*", 0, "*pd: gate passed: 1 no baseline; this is the first run*"),
        ("runz/*", 1, "*pd: gate FAILED: *'runz/[*]' names no run*"),
    ],
)
def test_first_session_is_green_and_a_typo_red(project, pattern, code, told):
    project.suite(SUITE)
    text = f"baseline: ['{pattern}']\nmetrics: {{ttft: {{max_increase: 0.2}}}}\n"
    (project.pytester.path / "g.yaml").write_text(text)

    result = project.run("--pd-gate", "g.yaml")

    assert result.ret == code
    result.stdout.fnmatch_lines([told])
