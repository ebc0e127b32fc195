"""A run directory reads the same whether it was finished, killed, or torn."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pytest_pd.errors import MeasurementError
from pytest_pd.report.outcome import TestOutcome, reason_of, settled
from pytest_pd.report.read import read_run
from tests.run_kit import PLAN, entry, outcome, passed, write_run


def test_finished_run_has_verdict_entries_and_logs(tmp_path):
    run = read_run(write_run(tmp_path / "r1", entries=[entry()], verdict=passed(3)))

    assert (run.run_id, run.word, run.counts()) == ("r1", "passed", {"passed": 3})
    assert run.entries[0].samples == (0.1, 0.2, 0.3)
    assert run.entries[0].concurrency == 1
    assert [log.name for log in run.topologies[0].logs] == ["decode-0.log"]


def test_killed_run_is_read_up_to_its_torn_line(tmp_path):
    path = write_run(tmp_path / "r1", entries=[entry()], outcomes=[outcome("passed")])
    with (path / "local_1p1d" / "entries.jsonl").open("a") as file:
        file.write('{"fullname": "pd::torn", "data": [1.0, 2.')

    run = read_run(path)

    assert len(run.entries) == 1
    assert (run.word, run.counts()) == ("unfinished", {"passed": 1})


@pytest.mark.parametrize(
    ("verdict", "word"),
    [
        (passed(2), "passed"),
        (passed(2, skipped=1), "passed"),
        (passed(2, invalid=1), "invalid"),
        (passed(2, invalid=1, failed=1), "failed"),
        (passed(2, error=1, blocked=9), "failed"),
        (passed(2) | {"exit_status": 2}, "failed"),
        (passed(2) | {"without_verdict": ["x"]}, "no verdict"),
        ({"topologies": {"a": {"skipped": 4}}}, "no verdict"),
    ],
)
def test_word_is_green_only_when_everything_is(tmp_path, verdict, word):
    assert read_run(write_run(tmp_path / "r1", verdict=verdict)).word == word


def test_folder_of_one_topology_is_a_run_too(tmp_path):
    path = write_run(tmp_path / "r1", entries=[entry()], verdict=passed())

    run = read_run(path / "local_1p1d")

    assert (run.run_id, len(run.topologies)) == ("r1", 1)


def test_folder_without_a_run_says_so(tmp_path):
    with pytest.raises(MeasurementError, match="holds no run"):
        read_run(tmp_path)


def test_test_that_ran_again_counts_once(tmp_path):
    first, again = entry(samples=[1.0]), entry(samples=[2.0])

    run = read_run(write_run(tmp_path / "r1", entries=[first, again]))

    assert [e.samples for e in run.entries] == [(2.0,)]


def test_secret_of_the_environment_is_masked(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnop")
    plan = PLAN | {
        "services": [{"name": "a", "argv": ["--key", "hf_abcdefghijklmnop"]}]
    }

    run = read_run(write_run(tmp_path / "r1", plan=plan))

    assert run.topologies[0].plan["services"][0]["argv"] == ["--key", "***"]


def test_invalid_figure_is_not_valid_though_the_test_passed(tmp_path):
    entries = [entry("ttft", valid=False), entry("itl", outcome="failed"), entry("e2e")]

    run = read_run(write_run(tmp_path / "r1", entries=entries))

    assert [e.is_valid for e in run.entries] == [False, False, True]


def test_open_loop_has_no_concurrency(tmp_path):
    load = {"concurrency": 64, "arrivals": "poisson", "rate_per_s": 8.0}

    run = read_run(write_run(tmp_path / "r1", entries=[entry(load=load)]))

    assert run.entries[0].concurrency is None


def test_worst_phase_of_a_test_counts():
    told = [outcome("passed"), outcome("error", when="teardown", reason="stuck")]

    (found,) = settled(TestOutcome.from_record(record) for record in told)

    assert (found.verdict, found.reason) == ("error", "stuck")


def test_failed_call_counts_before_what_its_teardown_says():
    told = [
        outcome("failed", reason="tokens differ"),
        outcome("error", when="teardown", reason="stuck"),
    ]

    (found,) = settled(TestOutcome.from_record(record) for record in told)

    assert (found.verdict, found.reason) == ("failed", "tokens differ")


@pytest.mark.parametrize(
    ("longrepr", "reason"),
    [
        (None, ""),
        (("file.py", 3, "Skipped: not today"), "not today"),
        ("\nfirst line\nsecond", "first line"),
        ("def test():\n>   assert 1 == 2\nE   assert 1 == 2\n", "assert 1 == 2"),
        (
            SimpleNamespace(reprcrash=SimpleNamespace(message="boom\nmore")),
            "boom",
        ),
    ],
)
def test_reason_is_the_first_line_that_says_why(longrepr, reason):
    assert reason_of(longrepr) == reason
