"""A change is told only when both noises, inside runs and between them, allow it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pytest_pd.errors import MeasurementError
from pytest_pd.measure.ratio import (
    DRAWS,
    Change,
    Ratio,
    compare_runs,
    resampled,
    run_scatter,
    statistic_of,
    student,
)

RNG = np.random.default_rng(7)


@pytest.fixture(autouse=True)
def _same_draws_in_any_order(monkeypatch):
    monkeypatch.setitem(globals(), "RNG", np.random.default_rng(7))


def runs(count, shift=1.0, jitter=0.02, samples=200):
    return [
        (
            np.exp(RNG.normal(-3, 0.3, samples))
            * shift
            * math.exp(RNG.normal(0, jitter))
        ).tolist()
        for _ in range(count)
    ]


def test_same_samples_have_ratio_one():
    same = [[0.1, 0.2, 0.3]] * 3

    found = compare_runs(same, same)

    assert found.value == pytest.approx(1.0)
    assert found.low < 1 < found.high


def test_large_change_over_several_runs_is_worse():
    found = compare_runs(runs(5), runs(3, shift=1.5))

    assert found.change(0.05) is Change.WORSE
    assert found.low < 1.5 < found.high


def test_the_other_way_round_is_better():
    assert compare_runs(runs(5, shift=1.5), runs(3)).change(0.05) is Change.BETTER


def test_quiet_runs_are_shown_to_be_the_same():
    quiet = [[0.1 + i * 1e-5 for i in range(100)] for _ in range(8)]

    assert compare_runs(quiet, quiet).change(0.05) is Change.SAME


def test_one_noisy_run_a_side_cannot_tell_a_small_change():
    found = compare_runs(runs(1, samples=20), runs(1, samples=20, shift=1.05))

    assert found.change(0.03) is Change.CANNOT_TELL


def test_scatter_between_runs_widens_the_interval():
    calm = compare_runs(runs(6, jitter=0.0), runs(6, jitter=0.0))
    rough = compare_runs(runs(6, jitter=0.3), runs(6, jitter=0.3))

    assert math.log(rough.high / rough.low) > 3 * math.log(calm.high / calm.low)


def test_false_alarms_between_runs_with_jitter_are_rare():
    alarms = sum(
        compare_runs(runs(5, jitter=0.03), runs(1, jitter=0.03)).change(0.0001)
        in (Change.WORSE, Change.BETTER)
        for _ in range(60)
    )

    assert alarms <= 9, "5 % are allowed, 15 % would be a broken interval"


def test_certain_but_small_change_is_not_worse():
    found = Ratio(1.02, 1.01, 1.03, 0.0, 1.0, 1.02, 9, 9)

    assert found.change(0.05) is Change.SAME
    assert found.change(0.01) is Change.WORSE


def test_scatter_starts_from_the_assumption_and_follows_the_runs():
    none, one = run_scatter([np.array([0.0]), np.array([0.0])], 0.05)
    seen, degrees = run_scatter([np.linspace(-1, 1, 50), np.array([0.0])], 0.05)

    assert (none, one) == (0.05, 4)
    assert seen == pytest.approx(np.linspace(-1, 1, 50).std(ddof=1), rel=0.05)
    assert degrees == 53


@pytest.mark.parametrize(
    ("degrees", "tail", "quantile"),
    [(4, 0.05, 2.1318), (4, 0.0005, 8.6103), (10, 0.025, 2.2281), (30, 0.0005, 3.6460)],
)
def test_scatter_between_runs_has_the_tails_of_student(degrees, tail, quantile):
    """Quantiles as in the tables of any textbook."""
    drawn = student(float(degrees))

    assert np.quantile(drawn, 1 - tail) == pytest.approx(quantile, rel=0.02)
    assert drawn.mean() == pytest.approx(0, abs=1e-9)
    assert len(drawn) == DRAWS


def test_drawn_quantiles_are_those_of_real_resamples():
    samples = np.exp(RNG.normal(0, 1, 101))

    drawn = resampled(samples, "p90", np.random.default_rng(0))
    real = [
        np.quantile(RNG.choice(samples, 101), 0.9, method="inverted_cdf")
        for _ in range(4000)
    ]

    assert len(drawn) == DRAWS
    assert set(drawn) <= set(samples)
    assert np.mean(drawn) == pytest.approx(np.mean(real), rel=0.03)
    assert np.std(drawn) == pytest.approx(np.std(real), rel=0.15)


def test_means_of_many_samples_use_their_normal_limit():
    samples = RNG.normal(10, 1, 5000)

    drawn = resampled(samples, "mean", np.random.default_rng(0))

    assert np.std(drawn) == pytest.approx(1 / math.sqrt(5000), rel=0.1)


def test_result_does_not_depend_on_the_clock():
    one, other = runs(2), runs(2)

    assert compare_runs(one, other) == compare_runs(one, other)


@pytest.mark.parametrize("name", ["median", "p0", "p101", "px", "90"])
def test_unknown_statistic_is_refused(name):
    with pytest.raises(MeasurementError, match="no statistic"):
        statistic_of([1.0], name)


@pytest.mark.parametrize("side", [[], [[]], [[0.0, 1.0]], [[-1.0]]])
def test_samples_that_have_no_ratio_are_refused(side):
    with pytest.raises(MeasurementError):
        compare_runs(side, [[1.0]])
