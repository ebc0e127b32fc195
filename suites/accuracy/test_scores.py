"""Scores of lm-eval's tasks, through the router and on one worker alone, by gates."""

from __future__ import annotations

import pytest

from pytest_pd.measure.measurement import Measurement

pytestmark = pytest.mark.accuracy


def test_every_sample_is_scored(scored, record, request):
    # not by record_property, which warns where the JUnit family is xunit2
    properties = request.node.user_properties
    properties += [
        ("pd_eval_task", scored.task),
        ("pd_eval_score", scored.score),
        ("pd_eval_samples", scored.samples),
    ]
    for kind, gate in scored.gates.items():
        properties.append((f"pd_eval_{kind}", str(gate).splitlines()[0]))

    extra = {
        "task": scored.task,
        "score": scored.score,
        "scores": dict(scored.scores),
        "samples": scored.samples,
        "logprob_gap": scored.gap,
        "gates": {kind: str(gate.outcome) for kind, gate in scored.gates.items()},
    }
    record([Measurement("eval_sample", scored.seconds, unit="s/sample", extra=extra)])
    assert len(scored.seconds) == scored.samples > 0


@pytest.mark.pd_gate("reference")
def test_score_is_what_is_expected(scored, passes):
    passes(scored)


@pytest.mark.pd_gate("paired")
@pytest.mark.pd_needs("disaggregated")
def test_no_score_is_lost_against_aggregated(scored, passes):
    passes(scored)


@pytest.mark.pd_gate("identity")
@pytest.mark.pd_needs("disaggregated")
def test_raw_answers_are_those_of_aggregated(scored, passes):
    passes(scored)


@pytest.mark.pd_gate("drift")
def test_score_does_not_drift_over_the_requests(scored, passes):
    passes(scored)
