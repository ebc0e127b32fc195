"""Attempts at one run are judged once, by the figures of all of them."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_pd.report.gated import gated
from tests.run_kit import entry, passed, write_run

RNG = np.random.default_rng(5)


def run(path, *points, scale=1.0, **more):
    """Leave a run with a figure for each number of streams."""
    samples = [*(np.exp(RNG.normal(-3, 0.05, 200)) * scale)]
    entries = [entry("ttft", samples, streams=n, **more) for n in points]
    return write_run(path, entries=entries, verdict=passed())


@pytest.fixture
def gate(tmp_path):
    """A strict gate with eight runs of two figures behind it."""
    for number in range(8):
        run(tmp_path / f"b{number}", 1, 8)
    path = tmp_path / "g.yaml"
    path.write_text(
        'baseline: ["b*", "night-*"]\nfail_on_missing: true\n'
        "metrics: {ttft: {max_increase: 0.1}}\n"
    )
    return path


def test_figures_of_a_retry_complete_those_of_the_first_attempt(gate, tmp_path):
    runs = [run(tmp_path / "night-1", 1), run(tmp_path / "night-2", 8)]

    lines, word = gated(gate, runs)

    assert word == "passed"
    assert lines[-1] == "gate passed: 2 passed"


def test_a_retry_without_figures_changes_nothing(gate, tmp_path):
    runs = [run(tmp_path / "night-1", 1, 8), run(tmp_path / "night-2")]

    assert gated(gate, runs)[1] == "passed"


def test_a_retry_does_not_hide_what_is_missing(gate, tmp_path):
    runs = [run(tmp_path / "night-1"), run(tmp_path / "night-2", 8)]

    assert gated(gate, runs)[1] == "no judgement"


def test_a_retry_of_another_figure_does_not_wash_a_worse_one(gate, tmp_path):
    runs = [run(tmp_path / "night-1", 1, scale=2.0), run(tmp_path / "night-2", 8)]

    assert gated(gate, runs)[1] == "worse"


def test_a_figure_that_was_measured_again_counts_as_the_later(gate, tmp_path):
    runs = [run(tmp_path / "night-1", 1, 8, scale=2.0), run(tmp_path / "night-2", 1, 8)]

    assert gated(gate, runs)[1] == "passed"


def test_a_figure_that_a_retry_lost_does_not_come_from_the_attempt_before(tmp_path):
    def attempt(name, *metrics, **more):
        entries = [
            entry(m, [0.1 + i / 1e4 for i in range(99)], **more) for m in metrics
        ]
        return write_run(tmp_path / name, entries=entries, verdict=passed())

    both = ("ttft", "goodput_time")
    for number in range(8):
        attempt(f"b{number}", *both)
    gate = tmp_path / "g.yaml"
    limit = "{max_increase: 0.1}"
    gate.write_text(
        f'baseline: ["b*"]\nmetrics: {{ttft: {limit}, goodput_time: {limit}}}\n'
    )
    runs = [attempt("night-1", *both, outcome="failed"), attempt("night-2", "ttft")]

    lines, word = gated(gate, runs)

    assert word == "worse"
    assert "goodput_time; missing now" in lines[0]


def test_newer_runs_of_another_topology_leave_the_baseline_as_it_is(gate, tmp_path):
    for number in range(12):
        run(tmp_path / f"b9{number:02}", 1, 8, topology_hash="other")

    lines, word = gated(gate, [run(tmp_path / "night-1", 1, 8)])

    assert word == "passed", lines


def test_an_attempt_that_left_no_run_is_left_out(gate, tmp_path):
    runs = [tmp_path / "night-1", run(tmp_path / "night-2", 1, 8)]

    assert gated(gate, runs)[1] == "passed"


def test_attempts_that_left_nothing_are_no_judgement(gate, tmp_path):
    lines, word = gated(gate, [tmp_path / "night-1", tmp_path / "night-2"])

    assert word == "no judgement"
    assert "holds no run" in lines[0]


def test_attempts_are_no_baseline_of_each_other(gate, tmp_path):
    gate.write_text('baseline: ["night-*"]\nmetrics: {ttft: {max_increase: 0.1}}\n')
    runs = [run(tmp_path / "night-1", 1), run(tmp_path / "night-2", 1, scale=2.0)]

    lines, word = gated(gate, runs)

    assert word == "passed"
    assert "this is the first run" in lines[-1]


def test_a_gate_that_cannot_tell_of_any_figure_has_not_passed(gate, tmp_path):
    for number in range(8):
        run(tmp_path / f"b9{number}", 1, 8, scale=1 + number % 2)

    lines, word = gated(gate, [run(tmp_path / "night-1", 1, 8, scale=1.2)])

    assert word == "too noisy"
    assert lines[-1].startswith("gate cannot tell: 2 too noisy; nothing passed")
