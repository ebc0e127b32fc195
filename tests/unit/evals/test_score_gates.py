"""Exact gates: published values, false alarms, power, and what they cannot tell."""

from __future__ import annotations

import random

import pytest

from pytest_pd.evals.chance import binomial_tail, difference, fisher_p, wilson
from pytest_pd.evals.gate import (
    Limits,
    Outcome,
    accepted_gate,
    detectable_drop,
    detectable_losses,
    drift_gate,
    mcnemar_p,
    paired_gate,
    reference_gate,
)
from pytest_pd.evals.identity import identity_gate

WIDE = Limits(largest_drop=0.25)
HALF = Limits(largest_drop=0.5)


def answers(n, wrong=()):
    return [i not in set(wrong) for i in range(n)]


def test_binomial_tail_of_a_fair_coin():
    assert binomial_tail(8, 10, 0.5) == pytest.approx(56 / 1024)
    assert binomial_tail(0, 10, 0.3) == pytest.approx(1.0)


def test_mcnemar_of_eighteen_to_none():
    assert mcnemar_p(18, 0) == pytest.approx(3.8e-6, rel=0.01)


def test_fisher_of_the_lady_tasting_tea():
    assert fisher_p(4, 4, 0, 4) == pytest.approx(1 / 70)


def test_fisher_without_any_wrong_answer_says_nothing():
    assert fisher_p(0, 66, 0, 66) == 1.0


@pytest.mark.parametrize(
    ("count", "trials", "low", "high"),
    [
        pytest.param(81, 263, 0.2553, 0.3662, id="newcombe-1998-table-1"),
        pytest.param(15, 148, 0.0624, 0.1605, id="newcombe-1998-table-2"),
        pytest.param(0, 20, 0.0, 0.1611, id="newcombe-1998-none"),
        pytest.param(1, 29, 0.0061, 0.1718, id="newcombe-1998-one"),
    ],
)
def test_wilson_interval_is_the_published_one(count, trials, low, high):
    assert wilson(count, trials) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        pytest.param((56, 70, 48, 80), 0.0524, 0.3339, id="newcombe-1998-b-a"),
        pytest.param((9, 10, 3, 10), 0.1705, 0.8090, id="newcombe-1998-b-b"),
        pytest.param((10, 10, 0, 20), 0.6791, 1.0, id="newcombe-1998-b-f"),
    ],
)
def test_interval_of_a_difference_is_the_published_one(counts, low, high):
    assert difference(*counts) == pytest.approx((low, high), abs=1e-4)


def test_tails_of_a_whole_benchmark_do_not_overflow():
    verdict = reference_gate(12_000, 14_042, 0.87)

    assert verdict.outcome is Outcome.FAILED
    assert verdict.detectable < 0.02


def test_a_score_of_shares_is_judged_by_its_sign():
    one = [0.5] * 40

    assert paired_gate(one, [0.4] * 40).outcome is Outcome.FAILED
    assert paired_gate(one, [0.4] * 5 + [0.6] * 35).outcome is not Outcome.FAILED


def test_rounding_of_shares_is_no_loss_and_no_gain():
    draw = random.Random(5)
    one = [draw.uniform(0.1, 0.9) for _ in range(400)]
    other = [score - 1e-4 + draw.gauss(0, 5e-4) for score in one]

    verdict = paired_gate(one, other)

    assert verdict.outcome is Outcome.PASSED
    assert verdict.effect > 0
    assert verdict.p_value == 1.0


def test_a_drop_of_shares_within_the_tolerance_is_no_alarm():
    """A third lose a little, one in ten gains more: significant, and nothing lost."""
    n = 600
    other = [0.45] * 200 + [0.65] * 60 + [0.5] * 340

    verdict = paired_gate([0.5] * n, other)

    assert verdict.p_value < 1e-6
    assert 0 < verdict.effect < 0.01
    assert verdict.outcome is Outcome.PASSED
    assert verdict.detectable >= 0.01


def test_gains_by_noise_take_more_losses_to_be_seen():
    assert detectable_losses(0.01) == 7
    assert detectable_losses(0.01, gained=5) > 7 + 5


def test_same_answers_have_an_interval_all_the_same():
    low, high = paired_gate(answers(200), answers(200)).interval

    assert low < 0 < high < 0.03


def test_an_accepted_score_has_an_error_of_its_own():
    stated = reference_gate(170, 200, 0.92)
    accepted = accepted_gate(170, 200, 46, 50)

    assert stated.outcome is Outcome.FAILED
    assert accepted.outcome is Outcome.CANNOT_TELL
    assert accepted.p_value > 0.05


def test_an_accepted_score_that_is_lost_fails():
    assert accepted_gate(160, 200, 190, 200).outcome is Outcome.FAILED


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
    verdict = paired_gate(answers(200), answers(200, range(10)), Limits(tolerance=0.06))

    assert verdict.outcome is Outcome.PASSED


@pytest.mark.parametrize(
    "judged",
    [
        lambda limits: paired_gate(answers(200, range(150)), answers(200), limits),
        lambda limits: reference_gate(50, 200, 0.25, limits),
        lambda limits: accepted_gate(50, 200, 50, 200, limits),
        lambda limits: drift_gate([i % 4 == 0 for i in range(300)], limits),
    ],
    ids=["paired", "reference", "accepted", "drift"],
)
def test_tolerance_above_all_that_can_be_lost_cannot_tell(judged):
    """A quarter is right: no loss is larger than that, so none is an alarm."""
    assert judged(Limits(tolerance=0.3)).outcome is Outcome.CANNOT_TELL
    assert judged(Limits(tolerance=0.2)).outcome is Outcome.PASSED


def test_smallest_drop_that_is_seen_is_not_below_the_tolerance():
    verdict = paired_gate(answers(200), answers(200), Limits(tolerance=0.2))

    assert verdict.detectable == 0.2


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
    assert drift_gate(answers(210, range(0, 210, 10)), WIDE).outcome is Outcome.PASSED


def test_all_right_is_no_drift():
    assert drift_gate(answers(200), WIDE).outcome is Outcome.PASSED


def test_thirds_of_66_cannot_see_a_small_drift():
    assert drift_gate(answers(200)).outcome is Outcome.CANNOT_TELL


def test_too_few_for_thirds():
    with pytest.raises(ValueError, match="thirds"):
        drift_gate(answers(8))


@pytest.mark.parametrize(
    "verdict",
    [
        pytest.param(
            paired_gate([0] * 200, [0] * 200, Limits(largest_drop=0.05)),
            id="paired, nothing right",
        ),
        pytest.param(
            paired_gate(answers(200, range(6, 200)), [0] * 200),
            id="paired, six right and all lost",
        ),
        pytest.param(
            paired_gate(answers(20, range(10)), answers(20, range(10, 20)), HALF),
            id="paired, more noise than right",
        ),
        pytest.param(
            identity_gate(100, 100, 95, Limits()), id="identity, its floor is 95 %"
        ),
        pytest.param(
            identity_gate(400, 400, 395, Limits()), id="identity, its floor is 99 %"
        ),
        pytest.param(reference_gate(0, 50, 0.06), id="reference of 6 %"),
        pytest.param(reference_gate(0, 50, 0.0), id="reference of nothing"),
        pytest.param(accepted_gate(0, 50, 4, 50), id="accepted 8 %"),
        pytest.param(drift_gate([0] * 200), id="drift, nothing right"),
    ],
)
def test_a_gate_that_no_loss_could_fail_cannot_tell(verdict):
    assert verdict.outcome is Outcome.CANNOT_TELL
    assert verdict.detectable == 1.0
    assert "no drop would have been seen" in str(verdict)


def test_a_baseline_with_just_enough_to_lose_is_judged():
    few = answers(200, range(7, 200))

    assert paired_gate(few, few).outcome is Outcome.PASSED
    assert paired_gate(few, [0] * 200).outcome is Outcome.FAILED


def test_the_answer_says_what_it_could_have_seen():
    text = str(paired_gate(answers(200), answers(200)))

    assert "p = 1" in text
    assert "n = 200" in text
    assert "a drop of 4.6% would have been seen" in text
