"""The same questions to P/D and to aggregated serving, judged pair by pair."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import pytest

from pytest_pd.evals.gate import Limits, Outcome, drift_gate, paired_gate
from pytest_pd.evals.record import FOLDER
from pytest_pd.measure.agree import first_divergence
from pytest_pd.measure.measurement import Measurement
from pytest_pd.probe.promptbook import PromptBook

pytestmark = [
    pytest.mark.accuracy,
    pytest.mark.pd_level("standard"),
    pytest.mark.pd_needs("disaggregated", "known_answers", "workers_answer"),
]

SAMPLES = 200
CHAIN = 16
AT_ONCE = 4


@dataclass(frozen=True)
class Pair:
    """One question's answers from both sides."""

    right: bool
    right_aggregated: bool
    diverges_at: int | None
    seconds: float


@pytest.fixture(scope="session")
def pairs(deployment, client, aggregated_client):
    """Ask 200 chains of look-ups, at all lengths, in one order on both sides."""
    from pytest_pd.fixtures.ask import asker

    plan = deployment.plan
    split, whole = asker(client, plan), asker(aggregated_client, plan)
    book = PromptBook(deployment.plan.model_path, f"accuracy:{time.time_ns()}")

    def one(index):
        question = book.make(index, tokens=60 + 3 * index, answer_tokens=CHAIN)
        begun_s = time.perf_counter()
        answer = split(question.text, max_tokens=CHAIN)
        seconds = time.perf_counter() - begun_s
        other = whole(question.text, max_tokens=CHAIN)
        return Pair(
            answer.text == question.expected,
            other.text == question.expected,
            first_divergence(answer.words, other.words),
            seconds,
        )

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(one, range(SAMPLES)))
    folder = deployment.run_dir / FOLDER
    folder.mkdir(exist_ok=True)
    rows = json.dumps([asdict(pair) for pair in found], indent=1)
    (folder / "recall_pairs.json").write_text(rows)
    return found


def test_no_accuracy_is_lost_against_aggregated(pairs, record):
    verdict = paired_gate(
        [pair.right_aggregated for pair in pairs], [pair.right for pair in pairs]
    )

    score = sum(pair.right for pair in pairs) / len(pairs)
    seconds = tuple(pair.seconds for pair in pairs)
    extra = {"score": score, "gate": str(verdict), "p_value": verdict.p_value}
    record([Measurement("eval_sample", seconds, extra=extra)])
    assert verdict.outcome is Outcome.PASSED, str(verdict)


@pytest.mark.pd_needs("deterministic")
def test_answers_are_identical_at_temperature_0(pairs):
    apart = [
        (i, p.diverges_at) for i, p in enumerate(pairs) if p.diverges_at is not None
    ]

    assert not apart, f"(sample, first differing token): {apart[:10]} of {len(apart)}"


def test_accuracy_does_not_drift_over_the_run(pairs):
    verdict = drift_gate([pair.right for pair in pairs], Limits(largest_drop=0.25))

    assert verdict.outcome is Outcome.PASSED, str(verdict)
