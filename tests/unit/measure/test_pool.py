"""Scatter learned from many metrics: as much as they agree and are independent."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_pd.measure.pool import LEAST_METRICS, agreement, independent, pooled
from pytest_pd.measure.ratio import JITTER_WEIGHT


def logs(metrics=50, runs=5, jitter=0.03, shared=0.0, inside=0.0, seed=1):
    """Return log figures (metrics, runs) that scatter by `jitter` between runs."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(1, runs))
    own = rng.normal(size=(metrics, runs))
    weather = jitter * (np.sqrt(shared) * common + np.sqrt(1 - shared) * own)
    return (weather + inside * rng.normal(size=(metrics, runs))).tolist()


def zeros(rows):
    return [[0.0] * len(row) for row in rows]


@pytest.mark.parametrize(
    ("jitter", "low", "high"),
    [(0.01, 0.009, 0.02), (0.03, 0.026, 0.034), (0.10, 0.08, 0.11)],
)
def test_scatter_of_many_metrics_is_learned(jitter, low, high):
    rows = logs(jitter=jitter)

    found = pooled(rows, zeros(rows), 0.03)

    assert low < np.median([a.jitter for a in found]) < high
    assert min(a.weight for a in found) > 2 * JITTER_WEIGHT


def test_scatter_inside_the_runs_is_not_counted_twice():
    rows = logs(jitter=0.03, inside=0.04)
    errors = [[0.04] * 5 for _ in rows]

    found = pooled(rows, errors, 0.03)

    assert np.median([a.jitter for a in found]) == pytest.approx(0.03, rel=0.3)


def test_metrics_that_move_together_are_worth_less():
    alone, together = (
        pooled(rows, zeros(rows), 0.03)[0].weight
        for rows in (logs(), logs(shared=0.95))
    )

    assert together == JITTER_WEIGHT < alone / 2


def test_an_assumption_that_the_runs_deny_loses_its_weight():
    rows = logs(13, jitter=0.4, shared=0.9)

    found = pooled(rows, zeros(rows), 0.03)

    assert max(a.weight for a in found) < JITTER_WEIGHT
    assert min(a.jitter for a in found) > 0.2


def test_metrics_that_differ_are_worth_less():
    rows = logs(25, jitter=0.01) + logs(25, jitter=0.10, seed=2)

    assert pooled(rows, zeros(rows), 0.03)[0].weight < 15


def test_what_a_metric_did_itself_is_no_assumption_about_it():
    rows = logs(jitter=0.03)
    wild = [*rows]
    wild[0] = [10 * value for value in rows[0]]

    assert (
        pooled(wild, zeros(rows), 0.03)[0].jitter
        < pooled(wild, zeros(rows), 0.03)[1].jitter
    )


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [[]],
        logs(LEAST_METRICS - 1),
        logs(50, runs=2),
        [[0.0]] * 20,
    ],
)
def test_little_teaches_nothing(rows):
    found = pooled(rows, zeros(rows), 0.05)

    assert [(a.jitter, a.weight) for a in found] == [(0.05, JITTER_WEIGHT)] * len(rows)


def test_metrics_with_another_number_of_runs_keep_the_assumption():
    rows = [*logs(20), [0.0] * 3]

    found = pooled(rows, zeros(rows), 0.05)

    assert found[-1].weight == JITTER_WEIGHT
    assert found[0].weight > JITTER_WEIGHT


def test_nothing_moving_at_all_is_not_believed():
    rows = [[0.0] * 5 for _ in range(20)]

    found = pooled(rows, zeros(rows), 0.04)

    assert all(a.jitter > 0 for a in found)


def test_agreement_falls_with_the_spread_of_the_variances():
    rng = np.random.default_rng(2)
    same = rng.chisquare(4, 4000) / 4
    wide = same / (rng.chisquare(8, 4000) / 8)

    assert agreement(same, 4) > 50
    assert 4 < agreement(wide, 4) < 12
    assert agreement(np.zeros(5), 4) == 0


def test_independent_rows_are_counted():
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(40, 200))
    rows -= rows.mean(1, keepdims=True)

    assert independent(rows) > 35
    assert independent(np.repeat(rows[:1], 40, axis=0)) == pytest.approx(1, abs=0.01)
    assert independent(np.zeros((5, 4))) == 1
