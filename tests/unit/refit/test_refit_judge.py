"""From reports to a verdict: each fault alone makes it red, honest reports do not."""

import random
from dataclasses import replace
from statistics import median

import numpy as np
import pytest

from pytest_pd.refit.growth import growth
from pytest_pd.refit.job import ClockSync, Job, RankReport, load_job, load_report
from pytest_pd.refit.judge import drift_ns, judge, machine_bound_s
from pytest_pd.refit.outcome import (
    findings,
    measurement,
    measurements,
    order_lines,
    outcome_table,
    save_outcomes,
)
from pytest_pd.refit.shape import Grid, TensorKind
from pytest_pd.refit.traffic import Traffic

KIND = TensorKind("w", "g", 8, 4, "tp", 0, 1, 0, 1, 0)
GRID = Grid(tp=1, ep=1, etp=1, pp=1, ranks=1, offset=0, layers=1)
BYTES = KIND.elements * 2
MS = 1_000_000


def job(**changes):
    values = {"name": "k/tiny/1", "kinds": (KIND,), "source": GRID}
    values |= {"target": replace(GRID, offset=1), "rendezvous": "", "out_dir": ""}
    return Job(**{**values, "iterations": 3, **changes})


def planned():
    elements = np.array([[0, KIND.elements], [0, 0]])
    return Traffic(elements, np.sign(elements), np.zeros(2, int))


def reports():
    made = [RankReport(rank, cores=2, host="h") for rank in range(2)]
    for report in made:
        report.samples_s = [0.010, 0.012, 0.011]
        report.starts_ns = [0, 100 * MS, 200 * MS]
        report.stops_ns = [10 * MS, 112 * MS, 211 * MS]
        report.clock_stop = ClockSync(at_ns=1000 * MS)
    made[0].sent, made[1].received = {1: BYTES}, {0: BYTES}
    made[0].memcpy_byte_s, made[0].loopback_byte_s = 1e10, 1e9
    return made


def verdict(made, **changes):
    outcome = judge(job(**changes), made, planned())
    return outcome.status, " ".join(outcome.problems)


def test_honest_reports_are_verified():
    assert verdict(reports()) == ("verified", "")


def test_a_rank_without_report_fails():
    assert verdict(reports()[:1]) == ("failed", "rank 1 gave no report.")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("error", "RuntimeError: boom", "rank 1: RuntimeError: boom"),
        ("wrong", ["iteration 0: w: 3 of 32 elements wrong"], "3 of 32"),
        ("gaps", ["w: 0..4 along dim 0 is written never"], "written never"),
        ("source_changed", ["w: 1 of 32 elements wrong"], "source changed: w"),
        ("received", {0: BYTES - 2}, f"{BYTES - 2} bytes received from rank 0"),
        ("received", {0: BYTES, 1: 2}, "2 bytes received from rank 1, planned 0"),
        ("sent", {0: 2}, "2 bytes sent to rank 0, planned 0"),
    ],
)
def test_each_fault_of_one_rank_fails(name, value, told):
    made = reports()
    setattr(made[1], name, value)

    status, text = verdict(made)

    assert status == "failed"
    assert told in text


def test_the_time_of_an_iteration_is_that_of_its_slowest_rank():
    made = reports()
    made[1].samples_s = [0.020, 0.001, 0.030]

    assert judge(job(), made, planned()).refit_s == (0.020, 0.012, 0.030)


def test_a_time_under_the_bound_is_invalid():
    outcome = judge(job(), reports(), planned(), bound_s=0.0101)

    assert outcome.status == "invalid"
    assert "10.000 ms, under the lower bound of 10.100 ms" in outcome.problems[0]


def test_a_bound_that_is_met_is_fine():
    outcome = judge(job(), reports(), planned(), bound_s=0.01)

    assert outcome.status == "verified"
    assert outcome.ratio == pytest.approx(1.1)


def test_the_machines_bound_counts_remote_bytes_twice_and_local_ones_once():
    made = reports()
    made[0].loopback_byte_s = 0.0

    assert machine_bound_s(made, 3_000_000, 4_000_000) == pytest.approx(0.0005)


def test_loopback_bounds_too_with_its_margin():
    # 8e9 bytes / (1e9 bytes/s x 2 cores x margin 4) against 0.8 s of copying.
    assert machine_bound_s(reports(), 8 * 10**9, 0) == pytest.approx(1.0)


def test_without_rates_there_is_no_machine_bound():
    assert machine_bound_s([RankReport(0)], 10, 10) == 0.0


def test_too_few_samples_are_invalid():
    status, text = verdict(reports(), iterations=4)

    assert status == "invalid"
    assert "3 samples of 4" in text


def test_a_clock_that_runs_away_is_invalid():
    made = reports()
    made[1].clock_stop = ClockSync(-500 * MS, 1 * MS, 1000 * MS)

    status, text = verdict(made)

    assert status == "invalid"
    assert "rank 1: its clock went 499.0 ms away" in text


def test_a_constant_offset_of_clocks_changes_nothing():
    made = reports()
    offset = 10**15
    made[1].clock_start = ClockSync(offset, 100, 0)
    made[1].clock_stop = ClockSync(offset, 100, 1000 * MS)
    made[1].starts_ns = [t + offset for t in made[1].starts_ns]
    made[1].stops_ns = [t + offset for t in made[1].stops_ns]

    outcome = judge(job(), made, planned())

    assert outcome.status == "verified"
    assert outcome.span_s == pytest.approx((0.010, 0.012, 0.011))


def test_clocks_of_hosts_that_were_not_aligned_give_no_span():
    made = reports()
    for report, host in zip(made, ("a", "b"), strict=True):
        report.host = host
        report.clock_start = report.clock_stop = ClockSync()

    outcome = judge(job(), made, planned())

    assert outcome.status == "verified"
    assert outcome.span_s == ()


def test_an_uncertain_offset_is_no_drift():
    # A busy machine: the two readings differ, within the bound of their error.
    start, stop = ClockSync(0, 60 * MS, 0), ClockSync(-90 * MS, 40 * MS, 1000 * MS)

    assert drift_ns(start, stop) == (0, 1000 * MS)


def test_memory_beyond_the_declared_is_invalid():
    made = reports()
    made[1].memory_before_bytes, made[1].memory_peak_bytes = 10, 10 + (200 << 20)

    status, text = verdict(made)

    assert status == "invalid"
    assert "memory rose by" in text
    made[1].staging_bytes = 200 << 20
    assert verdict(made)[0] == "verified"


def test_a_second_opinion_that_differs_fails():
    made = reports()
    made[0].opinions, made[1].opinions = {"dcp": "agrees"}, {"dcp": "differs: w"}

    assert verdict(made, opinions=("dcp",)) == (
        "failed",
        "second opinion dcp: differs: w",
    )


def test_a_second_opinion_that_was_not_given_fails():
    status, text = verdict(reports(), opinions=("dcp",))

    assert status == "failed"
    assert "was not given" in text


def test_reports_and_jobs_survive_json(tmp_path):
    made = reports()[1]
    made.save(tmp_path)
    job(opinions=("dcp",)).save(tmp_path / "job.json")

    assert load_report(tmp_path / "rank-1.json") == made
    assert load_job(tmp_path / "job.json") == job(opinions=("dcp",))


def test_growing_times_are_found():
    # The growth that was reported of one transport: 95 to 135 s over a run.
    trend = growth([95, 99, 104, 108, 113, 118, 122, 127, 131, 135])

    assert trend.is_finding
    assert trend.slope_s == pytest.approx(4.5, abs=0.1)
    assert trend.relative == pytest.approx(0.35, abs=0.03)


def test_noise_is_hardly_ever_taken_for_growth():
    chance = random.Random(7)
    runs = [[chance.gauss(1, 0.3) for _ in range(10)] for _ in range(400)]

    assert sum(growth(run).is_finding for run in runs) <= 8


def test_falling_and_short_series_are_no_growth():
    assert not growth([9, 8, 7, 6, 5, 4, 3, 2, 1]).is_finding
    assert not growth([1, 2, 3, 4]).is_finding


def test_growth_is_told_under_the_table():
    made = reports()
    for report in made:
        report.samples_s = [0.010 + 0.002 * i for i in range(10)]

    outcome = judge(job(iterations=10), made, planned())

    assert outcome.status == "verified"
    assert "times grow by 2.00 ms per iteration" in "".join(findings(outcome))


def test_the_table_never_shows_a_time_without_its_status():
    good = judge(job(), reports(), planned())
    bad = replace(good, status="failed", problems=("rank 1: wrong",))

    text = outcome_table([good, bad])

    assert "k/tiny/1  verified  11.0" in text
    assert "k/tiny/1  failed" in text
    assert "k/tiny/1: rank 1: wrong" in text


def test_the_measured_order_stands_beside_the_order_of_bounds():
    one = judge(job(), reports(), planned())
    two = replace(one, name="k/tiny/2", refit_s=(0.005,), bound_s=0.009)

    assert order_lines([one, two]) == ("measured order: 2 < 1\nbound order:    1 < 2\n")
    assert order_lines([one, replace(two, status="invalid")]) == ""


def test_a_measurement_carries_the_verdict():
    outcome = judge(job(), reports(), planned())

    made = measurement(outcome)

    assert made.metric == "refit"
    assert median(made.samples) == outcome.median_s
    assert made.extra["status"] == "verified"
    assert made.extra["remote_bytes"] == BYTES


def test_what_was_timed_is_measured_though_it_cannot_be_believed():
    made = reports()
    for report in made:
        report.plain_s = [0.005, 0.006]
    outcome = judge(job(), made, planned(), bound_s=1.0)
    assert outcome.status == "invalid"

    refit, plain = measurements(outcome)

    assert (refit.samples, refit.extra["status"]) == (outcome.refit_s, "invalid")
    assert (plain.metric, plain.samples) == ("plain_exchange", (0.005, 0.006))


def test_a_refit_without_times_has_no_measurement():
    assert measurements(judge(job(), [], planned(), bound_s=1.0)) == []


def test_outcomes_are_written_as_json(tmp_path):
    save_outcomes([judge(job(), reports(), planned())], tmp_path / "o.json")

    assert '"status": "verified"' in (tmp_path / "o.json").read_text()
