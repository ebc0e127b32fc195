"""Tests without a topology record, are kept, and are judged by a gate like others."""

from __future__ import annotations

import json

import pytest

SUITE = """
import os
from pytest_pd.measure.measurement import Measurement

def test_a(record):
    scale = float(os.environ.get("FAKE_SCALE", "1"))
    record([Measurement("ttft", tuple(scale * (0.1 + i / 1e4) for i in range(100)))])
"""
GATE = "baseline: ['runs/*']\nmetrics: {ttft: {max_increase: 0.2}}\n"


def entries(project):
    text = (project.pytester.path / "b.json").read_text()
    return [entry["fullname"] for entry in json.loads(text)["benchmarks"]]


@pytest.mark.parametrize("words", [(), ("-n", "2")])
def test_what_is_recorded_is_kept_and_reported(project, words):
    project.suite(SUITE)

    result = project.run("--benchmark-json=b.json", *words)

    assert result.ret == 0
    (name,) = entries(project)
    assert name.endswith("/test_suite::test_a::ttft")
    (kept,) = project.pytester.path.glob("runs/*/no-topology/entries.jsonl")
    assert json.loads(kept.read_text())["fullname"] == name
    verdict = json.loads((kept.parents[1] / "verdict.json").read_text())
    assert verdict["topologies"] == {"no-topology": {"passed": 1}}
    assert verdict["without_verdict"] == []
    result.stdout.fnmatch_lines(["*pd: report *report.html*"])
    assert not project.ledger


def test_a_gate_that_is_not_there_is_told_before_anything_runs(project):
    project.suite(SUITE)

    result = project.run("--pd-gate", "nofile.yaml")

    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: *nofile.yaml cannot be read: No such file*"])


def test_a_gate_that_had_nothing_to_judge_is_red_and_keeps_its_word(project):
    project.suite("def test_plain(): pass\n")
    (project.pytester.path / "g.yaml").write_text(GATE)

    result = project.run("--pd-gate", "g.yaml")

    assert result.ret == 1
    result.stdout.fnmatch_lines(["*pd: gate FAILED: *holds no run*"])
    (verdict,) = project.pytester.path.glob("runs/*/verdict.json")
    assert json.loads(verdict.read_text())["gate"] == "no judgement"


def test_slower_figures_are_worse_night_after_night(project, monkeypatch):
    project.suite(SUITE)
    (project.pytester.path / "g.yaml").write_text(GATE)
    for _ in range(2):
        project.run()

    same = project.run("--pd-gate", "g.yaml")
    monkeypatch.setenv("FAKE_SCALE", "3")
    slow = [project.run("--pd-gate", "g.yaml") for _ in range(2)]

    assert same.ret == 0
    for result in slow:
        assert result.ret == 1
        result.stdout.fnmatch_lines(["*pd: worse: *::ttft is 3.000 of 3 baseline*"])


def test_their_fixture_called_record_is_theirs(project):
    project.suite(
        """
        import pytest

        @pytest.fixture
        def record(): return 1

        def test_theirs(record): assert record == 1
        """
    )

    assert project.run().ret == 0
    assert not (project.pytester.path / "runs").exists()
