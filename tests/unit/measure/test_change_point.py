"""Change points: levels are found, odd nights and quiet histories are not."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_pd.measure.change_point import best_split, change_points, student_tail


def nights(*levels, jitter=0.03, seed=1):
    """Return values around each (level, number)."""
    rng = np.random.default_rng(seed)
    return [
        level * np.exp(rng.normal(0, jitter))
        for level, count in levels
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    ("t", "degrees", "tail"),
    [
        (0.0, 5, 0.5),
        (2.015, 5, 0.05),
        (2.228, 10, 0.025),
        (12.706, 1, 0.025),
        (3.460, 60, 0.0005),
        (2.326, 1e6, 0.01),
    ],
)
def test_tail_of_student_is_that_of_the_tables(t, degrees, tail):
    assert student_tail(t, degrees) == pytest.approx(tail, rel=2e-3)


def test_new_level_is_found_where_it_begins():
    (change,) = change_points(nights((1.0, 20), (1.15, 10)))

    assert abs(change.index - 20) <= 1
    assert change.ratio == pytest.approx(1.15, abs=0.04)
    assert change.p_value < 0.01


def test_two_levels_are_two_changes_in_order():
    found = change_points(nights((1.0, 12), (1.3, 12), (0.9, 12)))

    assert [round(change.index, -1) for change in found] == [10, 20]
    assert found[0].ratio > 1 > found[1].ratio


def test_odd_nights_are_no_new_level():
    values = nights((1.0, 30))
    values[10] *= 3
    values[20] *= 2

    assert change_points(values) == []


def test_three_runs_a_side_are_the_least():
    assert best_split(np.zeros(5)) is None
    assert change_points([1.0, 1.0, 9.0, 9.0]) == []
    assert change_points([]) == []


def test_small_changes_can_be_left_out():
    values = nights((1.0, 40), (1.06, 40), jitter=0.01)

    assert len(change_points(values)) == 1
    assert change_points(values, effect=0.1) == []


def test_quiet_histories_stay_quiet():
    alarms = sum(
        bool(change_points(nights((1.0, 30), seed=seed), alpha=0.05))
        for seed in range(80)
    )

    assert alarms <= 5


def test_values_that_never_scatter_are_judged_by_the_assumption():
    assert change_points([1.0] * 10) == []
    assert change_points([1.0] * 3 + [1.01] * 3) == []
