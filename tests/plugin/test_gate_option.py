"""``--pd-gate FILE`` makes a session red that got slower, and says why."""

from __future__ import annotations

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


def test_gate_that_cannot_judge_is_red(project):
    project.suite(SUITE)

    result = project.run("--pd-gate", "nothing.yaml")

    assert result.ret == 1
    result.stdout.fnmatch_lines(["*pd: gate FAILED: *nothing.yaml*"])


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
