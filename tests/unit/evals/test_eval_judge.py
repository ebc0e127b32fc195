"""Gates over samples of two sides: what each says, and what makes a run invalid."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pytest_pd.errors import InvalidRun, SpecError
from pytest_pd.evals.baseline import Expected
from pytest_pd.evals.gate import Limits, Outcome
from pytest_pd.evals.identity import (
    FLOOR_TOLERANCE,
    compare,
    identity_gate,
    logprob_gap,
)
from pytest_pd.evals.judge import AGAIN, AGGREGATED, PD, judge, limits_of
from pytest_pd.evals.sample import Reply
from pytest_pd.spec.evals import EvalGateSpec


@pytest.fixture
def side(make_sample):
    """Return a maker of one side: `wrong` documents have another, wrong answer."""

    def _side(n=200, wrong=()):
        return [
            make_sample(i, "w009 w009", 0.0) if i in set(wrong) else make_sample(i)
            for i in range(n)
        ]

    return _side


def test_equal_sides_pass_every_gate(side, make_eval):
    spec = make_eval("paired", "identity", "drift", "reference")

    found = judge(
        spec, "t", {PD: side(), AGGREGATED: side()}, Expected(1.0, "built so")
    )

    assert {gate.outcome for gate in found.gates.values()} == {Outcome.PASSED}
    assert found.score == 1.0
    assert found.samples == 200


def test_ten_of_two_hundred_lost_fail_all_but_drift(side, make_eval):
    spec = make_eval("paired", "identity", "drift", "reference")
    damaged = side(wrong=range(5, 200, 20))

    sides = {PD: damaged, AGGREGATED: side()}
    found = judge(spec, "t", sides, Expected(1.0, "built so"), exact=True)

    failed = {k for k, gate in found.gates.items() if gate.outcome is Outcome.FAILED}
    assert failed == {"paired", "identity", "reference"}
    assert "('t', 5)" in str(found.gates["paired"])
    assert "t #5 at token 0: 'w009' against 'w001'" in str(found.gates["identity"])
    assert "and 5 more of 200" in str(found.gates["identity"])


def test_damage_that_starts_late_is_drift(side, make_eval):
    found = judge(make_eval("drift"), "t", {PD: side(wrong=range(110, 200))}, None)

    assert found.gates["drift"].outcome is Outcome.FAILED


def test_drift_goes_by_the_order_of_sending_not_of_documents(side, make_eval):
    late = side(wrong=range(110, 200))
    mixed = [
        replace(s, replies=(replace(s.replies[0], sent=s.doc_id * 37 % 200),))
        for s in late
    ]

    found = judge(make_eval("drift"), "t", {PD: mixed}, None)

    assert found.gates["drift"].outcome is not Outcome.FAILED


def test_gates_that_need_a_partner_are_left_out_without_one(side, make_eval):
    found = judge(make_eval("paired", "drift"), "t", {PD: side()}, None)

    assert list(found.gates) == ["drift"]


def test_a_score_that_nobody_knows_is_unknown(side, make_eval):
    found = judge(make_eval("reference"), "t", {PD: side()}, None)

    assert found.gates["reference"].outcome is Outcome.UNKNOWN


def test_a_few_samples_cannot_tell_of_drift(side, make_eval):
    found = judge(make_eval("drift"), "t", {PD: side(8)}, None)

    assert found.gates["drift"].outcome is Outcome.CANNOT_TELL


def test_alpha_is_shared_out_among_the_gates(make_eval):
    assert make_eval("paired", "drift", alpha=0.05).alpha_each == 0.025


def test_sides_that_lack_samples_are_invalid(side, make_eval):
    with pytest.raises(InvalidRun, match="199 samples, 'pd' 200"):
        judge(make_eval("paired"), "t", {PD: side(), AGGREGATED: side(199)}, None)


def test_sides_that_were_asked_otherwise_are_invalid(side, make_eval):
    other = [replace(s, prompt_hash="other") for s in side()]

    with pytest.raises(InvalidRun, match="200 of them were other questions"):
        judge(make_eval("paired"), "t", {PD: side(), AGGREGATED: other}, None)


def test_shares_are_refused_by_gates_that_count(make_sample, make_eval):
    shares = [make_sample(i, score=0.5) for i in range(20)]

    with pytest.raises(SpecError, match="not right or wrong"):
        judge(make_eval("reference"), "t", {PD: shares}, Expected(1.0, "x"))


def test_an_accepted_score_is_judged_by_both_errors(side, make_eval):
    spec = make_eval("reference")
    sides = {PD: side(200, range(12))}

    stated = judge(spec, "t", sides, Expected(0.98, "paper"))
    accepted = judge(spec, "t", sides, Expected(0.98, "run", right=49, samples=50))

    assert stated.gates["reference"].outcome is Outcome.FAILED
    assert accepted.gates["reference"].outcome is Outcome.PASSED


def test_floor_of_noise_lets_as_much_pass_and_not_more(side, make_eval):
    spec = make_eval("identity")
    noisy, again = side(wrong=range(20)), side(wrong=range(20, 40))

    same = judge(spec, "t", {PD: noisy, AGGREGATED: side(), AGAIN: again}, None)
    worse = judge(
        spec,
        "t",
        {PD: side(wrong=range(70)), AGGREGATED: side(), AGAIN: again},
        None,
    )

    assert same.gates["identity"].outcome is Outcome.PASSED
    assert "differs from itself in 20 of 200" in str(same.gates["identity"])
    assert worse.gates["identity"].outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("differing", "outcome"),
    [(60, Outcome.PASSED), (70, Outcome.FAILED)],
    ids=["other-batches", "far-more"],
)
def test_other_batches_may_part_more_answers_than_the_floor(
    side, make_eval, differing, outcome
):
    """Aggregated differs from itself in 25 of 200: 30 % are tolerated, 35 % are not."""
    sides = {
        PD: side(wrong=range(differing)),
        AGGREGATED: side(),
        AGAIN: side(wrong=range(100, 125)),
    }

    gate = judge(make_eval("identity"), "t", sides, None).gates["identity"]

    assert gate.verdict.p_value < 0.05
    assert gate.outcome is outcome


def test_a_tolerance_that_the_file_names_is_taken(make_eval):
    spec, named = make_eval("identity"), EvalGateSpec(kind="identity", tolerance=0)
    (usual,) = spec.tasks["t"].gates

    assert limits_of(spec, usual, has_floor=True).tolerance == FLOOR_TOLERANCE
    assert limits_of(spec, usual, has_floor=False).tolerance == 0
    assert limits_of(spec, named, has_floor=True).tolerance == 0
    paired = EvalGateSpec(kind="paired")
    assert limits_of(spec, paired, has_floor=True).tolerance == 0


def test_without_a_floor_one_difference_fails():
    assert identity_gate(1, 200, None, Limits()).outcome is Outcome.FAILED
    assert identity_gate(1, 200, 1, Limits(largest_drop=0.5)).outcome is Outcome.PASSED


def test_differences_from_a_side_that_was_asked_once_cannot_tell(side, make_eval):
    sides = {PD: side(wrong=[7]), AGGREGATED: side()}

    found = judge(make_eval("identity"), "t", sides, None).gates["identity"]

    assert found.outcome is Outcome.CANNOT_TELL
    assert "1 of 200 differ" in str(found)
    assert "t #7 at token 0" in str(found)


def test_divergence_names_token_and_logprobs(make_sample):
    ours = make_sample(3, "w1 w2 w3", logprobs=(-0.1, -0.2, -2.0))
    theirs = make_sample(3, "w1 w2 w4", logprobs=(-0.1, -0.2, -0.3))

    found = compare(ours, theirs)

    assert (found.token, found.ours, found.theirs) == (2, "w3", "w4")
    assert found.logprobs == (-2.0, -0.3)


def test_a_shorter_answer_parts_where_it_ends(make_sample):
    found = compare(make_sample(0, "w1"), make_sample(0, "w1 w2"))

    assert (found.token, found.ours, found.theirs) == (1, "", "w2")


def test_words_are_compared_where_one_side_tells_no_tokens(make_sample):
    reply = Reply(0, 0.0, 0.05, ("w0", "01", " w002"), (-0.1, -0.2, -0.3))
    told = replace(make_sample(0), replies=(reply,))
    silent = replace(make_sample(0), replies=())
    other = replace(make_sample(0, "w001 w003"), replies=())

    assert compare(told, silent) is None
    assert compare(silent, told) is None
    found = compare(told, other)
    assert (found.token, found.ours, found.theirs) == (1, "w002", "w003")
    assert found.logprobs == (None, None)


def test_other_white_space_is_another_answer(make_sample):
    ours = make_sample(0)

    assert compare(ours, replace(ours, answers=("w001  w002",))) is not None
    assert compare(ours, ours) is None


def test_gap_is_measured_while_both_say_the_same(make_sample):
    ours = make_sample(0, "w1 w2 w3", logprobs=(-0.1, -0.2, -9.0))
    theirs = make_sample(0, "w1 w2 w4", logprobs=(-0.1, -0.25, -0.1))

    assert logprob_gap(ours, theirs) == pytest.approx(0.05)
    assert logprob_gap(make_sample(0), make_sample(0)) is None


@pytest.mark.parametrize(
    ("shift", "is_apart"), [(1e-4, False), (0.5, True)], ids=["rounding", "damage"]
)
def test_scored_choices_are_compared_as_numbers(make_sample, shift, is_apart):
    def scored(value):
        return replace(make_sample(0), answers=(json.dumps([str(value), "False"]),))

    assert (compare(scored(-3.0), scored(-3.0 + shift)) is not None) is is_apart


def test_the_record_is_plain_json(side, make_eval):
    found = judge(make_eval("paired"), "t", {PD: side(), AGGREGATED: side()}, None)

    record = json.loads(json.dumps(found.as_record()))

    assert record["gates"]["paired"]["outcome"] == "passed"
    assert record["scores"] == {"pd": 1.0, "aggregated": 1.0}
    assert record["seconds_mean"] == pytest.approx(0.05)
