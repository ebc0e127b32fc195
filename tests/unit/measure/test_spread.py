"""The chi-squared tail against published critical values."""

from __future__ import annotations

import random

import pytest

from pytest_pd.measure.agree import first_divergence
from pytest_pd.measure.spread import ALPHA, chi_squared_tail, even_p_value


@pytest.mark.parametrize(
    ("statistic", "degrees", "tail"),
    [
        (3.841, 1, 0.05),
        (6.635, 1, 0.01),
        (5.991, 2, 0.05),
        (7.815, 3, 0.05),
        (11.345, 3, 0.01),
        (18.307, 10, 0.05),
        (24.996, 15, 0.05),
        (30.578, 15, 0.01),
    ],
)
def test_critical_values_of_the_tables(statistic, degrees, tail):
    assert chi_squared_tail(statistic, degrees) == pytest.approx(tail, rel=2e-3)


def test_one_worker_is_even():
    assert even_p_value([40]) == 1.0


def test_nothing_sent_is_even():
    assert even_p_value([0, 0]) == 1.0


def test_all_to_one_of_two_is_uneven():
    assert even_p_value([40, 0]) < ALPHA


def test_round_robin_is_even():
    assert even_p_value([20, 20, 20]) == 1.0


def test_random_routing_raises_no_alarm_in_2000_runs():
    draw = random.Random(1)

    def run():
        counts = [0, 0, 0, 0]
        for _ in range(80):
            counts[draw.randrange(4)] += 1
        return even_p_value(counts)

    assert sum(run() < ALPHA for _ in range(2000)) == 0


@pytest.mark.parametrize(
    ("one", "other", "place"),
    [("abc", "abc", None), ("abc", "abd", 2), ("ab", "abc", 2), ("", "", None)],
)
def test_first_divergence(one, other, place):
    assert first_divergence(one, other) == place
