"""Exact gates: published values, false alarms, power, and what they cannot tell."""

from __future__ import annotations

import random

import pytest

from pytest_pd.evals.gate import (
    Outcome,
    binomial_tail,
    detectable_drop,
    drift_gate,
    fisher_p,
    mcnemar_p,
    paired_gate,
    reference_gate,
)


def answers(n, wrong=()):
    return [i not in set(wrong) for i in range(n)]


def test_binomial_tail_of_a_fair_coin():
    assert binomial_tail(8, 10, 0.5) == pytest.approx(56 / 1024)
    assert binomial_tail(0, 10, 0.3) == pytest.approx(1.0)


def test_mcnemar_of_eighteen_to_none():
    assert mcnemar_p(18, 0) == pytest.approx(3.8e-6, rel=0.01)


def test_fisher_of_the_lady_tasting_tea():
    assert fisher_p(4, 4, 0, 4) == pytest.approx(1 / 70)


def test_same_answers_pass():
    assert paired_gate(answers(200), answers(200)).outcome is Outcome.PASSED


def test_ten_damaged_of_two_hundred_fail():
    damaged = random.Random(1).sample(range(200), 10)

    verdict = paired_gate(answers(200), answers(200, damaged))

    assert verdict.outcome is Outcome.FAILED
    assert verdict.effect == 0.05
    assert verdict.p_value < 0.001


def test_gains_are_no_alarm():
    verdict = paired_gate(answers(200, range(30)), answers(200))

    assert verdict.outcome is Outcome.PASSED
    assert verdict.effect == -0.15


def test_as_many_lost_as_gained_is_no_alarm():
    verdict = paired_gate(answers(200, range(10)), answers(200, range(10, 20)))

    assert verdict.outcome is Outcome.PASSED


def test_a_tolerated_drop_is_no_alarm():
    verdict = paired_gate(answers(200), answers(200, range(10)), tolerance=0.06)

    assert verdict.outcome is Outcome.PASSED


def test_few_pairs_cannot_tell():
    assert paired_gate(answers(5), answers(5)).outcome is Outcome.CANNOT_TELL


def test_other_samples_are_refused():
    with pytest.raises(ValueError, match="not the same"):
        paired_gate(answers(5), answers(6))


def test_paired_gate_keeps_its_alpha():
    draw = random.Random(2)
    alarms = 0
    for _ in range(500):
        one = [draw.random() < 0.8 for _ in range(100)]
        other = [draw.random() < 0.8 for _ in range(100)]
        alarms += paired_gate(one, other).outcome is Outcome.FAILED

    assert alarms <= 15


def test_reference_gate_fails_on_a_real_drop():
    assert reference_gate(180, 200, 0.95).outcome is Outcome.FAILED


def test_reference_gate_passes_at_the_reference():
    assert reference_gate(950, 1000, 0.95).outcome is Outcome.PASSED


def test_reference_gate_with_few_samples_cannot_tell():
    verdict = reference_gate(19, 20, 0.95)

    assert verdict.outcome is Outcome.CANNOT_TELL
    assert verdict.detectable > 0.05


def test_more_samples_see_smaller_drops():
    assert detectable_drop(1000, 0.95) < detectable_drop(100, 0.95)


def test_drift_from_the_hundredth_request_fails():
    draw = random.Random(3)
    damaged = [i for i in range(100, 200) if draw.random() < 0.3]

    assert drift_gate(answers(200, damaged)).outcome is Outcome.FAILED


def test_even_damage_is_no_drift():
    assert drift_gate(answers(210, range(0, 210, 10))).outcome is Outcome.PASSED


def test_all_right_is_no_drift():
    assert drift_gate(answers(200)).outcome is Outcome.PASSED


def test_too_few_for_thirds():
    with pytest.raises(ValueError, match="thirds"):
        drift_gate(answers(8))


def test_the_answer_says_what_it_could_have_seen():
    text = str(paired_gate(answers(200), answers(200)))

    assert "p = 1" in text
    assert "n = 200" in text
    assert "a drop of 3.5% would have been seen" in text
