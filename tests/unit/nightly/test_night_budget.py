"""How long a night takes, told by earlier nights."""

from __future__ import annotations

import subprocess

import pytest

from pytest_pd.nightly.book import (
    newest_was_stopped,
    read_times,
    record_of,
    write_record,
)
from pytest_pd.nightly.budget import LEAST_S, NightTimes, estimate, times_of
from pytest_pd.nightly.judgement import Attempt, Verdict, judge_night, nothing_run
from pytest_pd.nightly.launch import list_tests
from pytest_pd.report.outcome import TestOutcome
from pytest_pd.spec.quarantine import NOBODY


def night(overhead_s=10.0, topologies=1, **tests_s):
    return NightTimes(overhead_s, tests_s, topologies)


def test_the_slowest_of_each_test_counts():
    found = estimate(["a", "b"], 1, [night(a=1, b=5), night(a=3, b=2)])

    assert found.total_s == 3 + 5 + 10


def test_each_topology_brings_its_overhead():
    found = estimate(["a"], 3, [night(overhead_s=40, topologies=2, a=1)])

    assert found.total_s == 1 + 3 * 20


def test_new_tests_count_as_the_median():
    found = estimate(["a", "b", "new"], 1, [night(overhead_s=0, a=2, b=4)])

    assert found.total_s == 2 + 4 + 3
    assert found.unknown == 1
    assert "1 of them new" in str(found)


def test_old_nights_do_not_count():
    nights = [night(a=1000), *[night(a=1)] * 5]

    assert estimate(["a"], 1, nights).total_s == 11


@pytest.mark.parametrize("nights", [[], [night(other=1)]], ids=["first", "all-new"])
def test_nobody_knows_before_the_first_night(nights):
    found = estimate(["a"], 1, nights)

    assert found.total_s is None
    assert found.limit_s is None
    assert "no earlier night" in str(found)


def test_the_limit_is_generous():
    assert estimate(["a"], 1, [night(a=1)]).limit_s == LEAST_S
    assert estimate(["a"], 1, [night(a=990)]).limit_s == 1500


def test_overhead_is_what_tests_did_not_take():
    found = times_of(100.0, [("a", "t", 30.0), ("b", "u", 20.0), ("c", "", 1.0)])

    assert found.overhead_s == 49
    assert found.topologies == 2


def test_tests_beside_each_other_leave_no_negative_overhead():
    assert times_of(10.0, [("a", "t", 9.0), ("b", "t", 9.0)]).overhead_s == 0


@pytest.mark.parametrize("queued_s", [0.0, 30.0], ids=["at-once", "queued-together"])
def test_tests_beside_each_other_count_as_the_night_they_took(queued_s):
    earlier = times_of(20.0, [("a", "t", 10.0), ("b", "t", 30.0)], queued_s)

    assert estimate(["a", "b"], 1, [earlier]).total_s == 20
    assert estimate(["a"], 1, [earlier]).total_s == 5


def outcome(test="a", verdict="passed", layer=""):
    return TestOutcome(test, "t", verdict, "call", 2.0, layer=layer)


def record(tmp_path, name, **fields):
    given = {"exit_code": 0, "wall_s": 5.0, "outcomes": (outcome(),), **fields}
    made = [Attempt(**given)]
    folder = tmp_path / name
    folder.mkdir()
    content = record_of(judge_night(made, NOBODY), made, ["suites"])
    write_record(folder / "nightly.json", content)


def test_times_come_back_from_the_records(tmp_path):
    record(tmp_path, "1")

    assert read_times(tmp_path) == [NightTimes(3.0, {"a": 2.0}, 1)]


def test_nights_that_were_cut_tell_nothing(tmp_path):
    record(tmp_path, "1", cut=True)
    record(tmp_path, "2", exit_code=130)

    assert read_times(tmp_path) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"outcomes": (outcome(), outcome("b", "blocked", "provision"))},
        {"outcomes": (outcome(), outcome("b", "error", "infra"))},
        {"silent": ("t",)},
    ],
    ids=["blocked", "infra", "silent"],
)
def test_nights_without_some_topology_tell_nothing(tmp_path, fields):
    record(tmp_path, "1", exit_code=1, **fields)

    assert read_times(tmp_path) == []


def test_a_test_that_stopped_on_the_way_counts_as_new(tmp_path):
    record(tmp_path, "1", outcomes=(outcome(), outcome("b", "error", "client")))

    assert read_times(tmp_path)[0].tests_s == {"a": 2.0}


def test_time_in_the_queue_counts_for_the_limit_alone(tmp_path):
    record(tmp_path, "1", wall_s=7505.0, queued_s=7500.0)

    found = estimate(["a"], 1, read_times(tmp_path))

    assert found.total_s == 5
    assert found.limit_s == 1.5 * 7505


def test_a_cut_night_stops_no_other_until_one_is_whole(tmp_path):
    record(tmp_path, "1", cut=True)
    assert newest_was_stopped(tmp_path)

    record(tmp_path, "2")
    assert not newest_was_stopped(tmp_path)


@pytest.mark.parametrize(
    ("verdict", "stopped"), [(Verdict.REFUSED, True), (Verdict.UNSTARTED, False)]
)
def test_a_refused_night_stops_no_other(tmp_path, verdict, stopped):
    record(tmp_path, "1")
    (tmp_path / "2").mkdir()
    content = record_of(nothing_run(verdict, "why"), [], [])
    write_record(tmp_path / "2" / "nightly.json", content)

    assert newest_was_stopped(tmp_path) is stopped


def test_a_damaged_record_is_left_out(tmp_path):
    record(tmp_path, "1")
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "nightly.json").write_text('{"attempts": [')

    assert len(read_times(tmp_path)) == 1


def test_a_budget_of_a_month_is_more_than_a_wait_can_hold(monkeypatch, tmp_path):
    waits = []

    def run(argv, *, timeout, **_):
        waits.append(timeout)
        raise subprocess.TimeoutExpired(argv, timeout)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(TimeoutError):
        list_tests(["x"], tmp_path, 30 * 86400.0)

    assert waits[0] * 1000 < 2**31  # poll takes milliseconds in 32 bits
