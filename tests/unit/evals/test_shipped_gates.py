"""What every shipped eval file promises, its gates can keep: told from the files.

Healthy serving scores the same and, on GPUs, swaps some right answers for as many wrong
ones. That must pass at every accuracy a model may have; a real loss must fail.
"""

from __future__ import annotations

import random

import pytest

from pytest_pd.evals import data
from pytest_pd.evals.catalogue import USUAL_GATES, read_eval
from pytest_pd.evals.gate import (
    Limits,
    Outcome,
    Verdict,
    accepted_gate,
    drift_gate,
    paired_gate,
    reference_gate,
)
from pytest_pd.evals.identity import identity_gate
from pytest_pd.evals.judge import limits_of
from pytest_pd.spec.evals import EvalFileSpec
from pytest_pd.spec.locate import HERE, catalogue

DOCUMENTS = {
    "gsm8k": (1, 1319),
    "mmlu": (57, 100),
    "hellaswag": (1, 10_042),
    "truthfulqa_mc1": (1, 817),
    "truthfulqa_mc2": (1, 817),
    "truthfulqa_gen": (1, 817),
    **{task: (1, len(list(make(0)))) for task, make in data.MAKERS.items()},
}
"""Task to its subtasks and the documents of each (of mmlu's smallest subject)."""
FEW = 4
"""Documents of each task of an eval with rows of its own."""
SHARES = (*(percent / 100 for percent in range(30, 100, 5)), 0.97)
FLIPS = (0.0, 0.05, 0.1)
TURNED_OFF = 1.0

GATES = [
    pytest.param(name, task, gate.kind, id=f"{name}-{task}-{gate.kind}")
    for name in sorted(catalogue("evals", HERE))
    for task, wanted in read_eval(name, HERE).tasks.items()
    for gate in wanted.gates
]
PROMISING = [
    one
    for one in GATES
    if read_eval(one.values[0], HERE).gate(*one.values[1:]).largest_drop < TURNED_OFF
]


def samples_of(spec: EvalFileSpec, task: str) -> int:
    """Return how many samples a task is judged by; a new task needs a row above."""
    if spec.data:
        return FEW
    subtasks, documents = DOCUMENTS[task]
    return subtasks * min(documents, spec.tasks[task].limit or documents)


def shares_of(spec: EvalFileSpec) -> tuple[float, ...]:
    """Return accuracies that a model may have; where answers are known, all right."""
    return (1.0,) if "known_answers" in spec.needs else SHARES


def side(n: int, right: int) -> list[bool]:
    return [index < right for index in range(n)]


def verdicts(
    kind: str, n: int, share: float, drop: float, limits: Limits
) -> list[Verdict]:
    """Return what a gate says of `share` on one side and ``share - drop`` on the other.

    For ``identity``, shares are of answers that are the same.
    """
    right, left = round(share * n), round((share - drop) * n)
    if kind == "reference":
        return [
            reference_gate(left, n, right / n, limits),
            accepted_gate(left, n, right, n, limits),
        ]
    if kind == "identity":
        return [identity_gate(n - left, n, n - right, limits)]
    if kind == "drift":
        third = max(3, n // 3)
        before, after = round(share * third), round((share - drop) * third)
        order = side(third, before) * 2 + side(third, after)
        return [drift_gate(order, limits)]
    return [paired(n, right, left, flips, limits) for flips in FLIPS]


def paired(n: int, right: int, left: int, flips: float, limits: Limits) -> Verdict:
    """Judge pairs of which `flips` are lost and as many gained, where there are any."""
    swapped = min(round(flips * n), n - right, left)
    kept = side(left, left - swapped) + [False] * (right - left)
    gained = side(n - right, swapped)
    return paired_gate(side(n, right), kept + gained, limits)


@pytest.mark.parametrize(("name", "task", "kind"), GATES)
def test_healthy_serving_passes_at_any_accuracy(name, task, kind):
    spec = read_eval(name, HERE)
    limits = limits_of(spec, spec.gate(task, kind), has_floor=True)

    for share in shares_of(spec):
        for verdict in verdicts(kind, samples_of(spec, task), share, 0.0, limits):
            assert verdict.outcome is Outcome.PASSED, f"at {share:g}: {verdict}"


@pytest.mark.parametrize(("name", "task", "kind"), PROMISING)
def test_twice_the_promised_drop_fails(name, task, kind):
    spec = read_eval(name, HERE)
    gate = spec.gate(task, kind)
    limits = limits_of(spec, gate, has_floor=True)

    for share in shares_of(spec):
        drop = min(2 * gate.largest_drop, share)
        for verdict in verdicts(kind, samples_of(spec, task), share, drop, limits):
            assert verdict.outcome is Outcome.FAILED, f"at {share:g}: {verdict}"


@pytest.mark.parametrize(("name", "task", "kind"), PROMISING)
def test_too_few_samples_for_the_promise_cannot_tell(name, task, kind):
    spec = read_eval(name, HERE)
    limits = limits_of(spec, spec.gate(task, kind), has_floor=True)

    for share in shares_of(spec):
        assert verdicts(kind, 9, share, 0.0, limits)[-1].outcome is Outcome.CANNOT_TELL


@pytest.mark.parametrize("kind", USUAL_GATES)
@pytest.mark.parametrize("n", [166, 198])
def test_a_small_task_without_a_file_can_be_told(kind, n):
    limits = Limits(0.05 / len(USUAL_GATES), largest_drop=USUAL_GATES[kind])

    for share in SHARES:
        for verdict in verdicts(kind, n, share, 0.0, limits):
            assert verdict.outcome is Outcome.PASSED, f"at {share:g}: {verdict}"


def test_shares_that_move_with_the_batch_pass_and_lost_answers_fail():
    spec = read_eval("truthfulqa", HERE)
    gate = spec.gate("truthfulqa_mc2", "paired")
    limits = limits_of(spec, gate, has_floor=True)
    draw = random.Random(4)
    baseline = [draw.uniform(0.05, 0.95) for _ in range(817)]
    moved = [score + draw.gauss(0, 0.02) for score in baseline]
    lost = [0.0 if draw.random() < 0.2 else score for score in moved]

    assert paired_gate(baseline, moved, limits).outcome is Outcome.PASSED
    assert paired_gate(baseline, lost, limits).outcome is Outcome.FAILED
