"""From samples of all sides to what each gate answers. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pytest_pd.errors import InvalidRun, SpecError
from pytest_pd.evals.baseline import Expected
from pytest_pd.evals.gate import (
    Limits,
    Outcome,
    Verdict,
    accepted_gate,
    drift_gate,
    is_lost,
    paired_gate,
    reference_gate,
)
from pytest_pd.evals.identity import (
    FLOOR_TOLERANCE,
    Divergence,
    compare,
    identity_gate,
    logprob_gap,
)
from pytest_pd.evals.sample import Sample
from pytest_pd.spec.evals import EvalFileSpec, EvalGateSpec

PD, AGGREGATED, AGAIN = "pd", "aggregated", "aggregated_again"
"""Names of the sides; a topology without a hand-over has only the first."""
SHOWN = 5
FEWEST = 9
NO_FLOOR = "how far aggregated differs from itself was not asked"


@dataclass(frozen=True, slots=True)
class GateAnswer:
    """What one gate says about one task.

    Attributes:
        verdict: None where there is nothing to hold against.
        notes: What a person wants to know beside it.
    """

    kind: str
    outcome: Outcome
    verdict: Verdict | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = str(self.verdict) if self.verdict else str(self.outcome)
        return "\n  ".join([f"{self.kind}: {said}", *self.notes])

    def as_record(self) -> dict[str, Any]:
        """Return plain JSON values."""
        numbers = asdict(self.verdict) if self.verdict else {}
        return {**numbers, "outcome": str(self.outcome), "notes": list(self.notes)}


@dataclass(frozen=True, slots=True)
class TaskResult:
    """One task on one topology.

    Attributes:
        scores: Mean score by side.
        gap: Largest difference of logprobs between P/D and aggregated; None where
            there is no such pair.
        seconds: Per sample of P/D, in the order of sending.
    """

    task: str
    metric: str
    scores: Mapping[str, float]
    samples: int
    seconds: tuple[float, ...]
    gates: Mapping[str, GateAnswer] = field(default_factory=dict)
    gap: float | None = None
    limit: int | None = None
    shots: int | None = None

    @property
    def score(self) -> float:
        return self.scores[PD]

    def as_record(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "metric": self.metric,
            "score": self.score,
            "scores": dict(self.scores),
            "samples": self.samples,
            "limit": self.limit,
            "shots": self.shots,
            "logprob_gap": self.gap,
            "seconds_mean": sum(self.seconds) / len(self.seconds),
            "gates": {kind: gate.as_record() for kind, gate in self.gates.items()},
        }


Sides = Mapping[str, Sequence[Sample]]


def judge(
    spec: EvalFileSpec,
    task: str,
    sides: Sides,
    expected: Expected | None,
    *,
    exact: bool = False,
) -> TaskResult:
    """Judge one task by every gate that its eval file names and the sides allow.

    ``paired`` and ``identity`` need the aggregated side; where it was asked twice,
    identity is judged against how far that differs from itself.

    Args:
        exact: The same tokens are due at every call: one difference fails.

    Raises:
        InvalidRun: the sides were not asked the same.
    """
    same_questions(task, sides)
    ours = sorted(sides[PD], key=lambda sample: sample.sent)
    wanted = spec.tasks[task]
    gates: dict[str, GateAnswer] = {}
    for gate in wanted.gates:
        limits = limits_of(spec, gate, has_floor=AGAIN in sides)
        if gate.kind == "reference":
            gates[gate.kind] = _reference(ours, expected, limits)
        elif gate.kind == "drift":
            gates[gate.kind] = _drift(ours, limits)
        elif AGGREGATED in sides and gate.kind == "paired":
            gates[gate.kind] = _paired(ours, sides, limits)
        elif AGGREGATED in sides:
            gates[gate.kind] = _identity(ours, sides, limits, exact)
    return TaskResult(
        task=task,
        metric=f"{wanted.metric},{wanted.filter}",
        scores={name: mean(samples) for name, samples in sides.items()},
        samples=len(ours),
        seconds=tuple(sample.seconds for sample in ours),
        gates=gates,
        gap=largest_gap(ours, sides.get(AGGREGATED, ())),
        limit=wanted.limit,
        shots=wanted.shots,
    )


def limits_of(spec: EvalFileSpec, gate: EvalGateSpec, *, has_floor: bool) -> Limits:
    """Return how strict a gate is.

    Args:
        has_floor: Aggregated was asked twice, for its answers vary by themselves.
    """
    tolerance = gate.tolerance
    if tolerance is None:
        tolerance = FLOOR_TOLERANCE if has_floor and gate.kind == "identity" else 0.0
    return Limits(spec.alpha_each, spec.power, tolerance, gate.largest_drop)


def mean(samples: Sequence[Sample]) -> float:
    """Return the mean score."""
    return sum(sample.score for sample in samples) / len(samples)


def same_questions(task: str, sides: Sides) -> None:
    """Check that all sides answered the same prompts, each once.

    Raises:
        InvalidRun: a side lacks samples or was asked something else.
    """
    first = {sample.key: sample.prompt_hash for sample in sides[PD]}
    for name, samples in sides.items():
        asked = {sample.key: sample.prompt_hash for sample in samples}
        if asked != first or len(samples) != len(first):
            apart = sum(first.get(key) != value for key, value in asked.items())
            raise InvalidRun(
                f"{task}: {name!r} answered {len(samples)} samples, {PD!r} "
                f"{len(sides[PD])}, and {apart} of them were other questions.",
                hint="the two sides must be asked the same",
            )


def _partners(ours: Sequence[Sample], theirs: Sequence[Sample]) -> list[Sample]:
    by_key = {sample.key: sample for sample in theirs}
    return [by_key[sample.key] for sample in ours]


def _paired(ours: Sequence[Sample], sides: Sides, limits: Limits) -> GateAnswer:
    theirs = _partners(ours, sides[AGGREGATED])
    verdict = paired_gate(
        [sample.score for sample in theirs], [sample.score for sample in ours], limits
    )
    pairs = zip(ours, theirs, strict=True)
    lost = [one.key for one, other in pairs if is_lost(other.score, one.score)]
    notes = (f"lost: {_shown(lost)}",) if lost else ()
    return GateAnswer("paired", verdict.outcome, verdict, notes)


def _identity(
    ours: Sequence[Sample], sides: Sides, limits: Limits, exact: bool
) -> GateAnswer:
    apart = divergences(ours, sides[AGGREGATED])
    notes = [str(one) for one in apart[:SHOWN]]
    if len(apart) > SHOWN:
        notes.append(f"and {len(apart) - SHOWN} more of {len(ours)}")
    floor = None
    if AGAIN in sides:
        floor = len(divergences(sides[AGGREGATED], sides[AGAIN]))
    elif apart and not exact:
        notes.append(f"{len(apart)} of {len(ours)} differ; {NO_FLOOR}")
        return GateAnswer("identity", Outcome.CANNOT_TELL, notes=tuple(notes))
    verdict = identity_gate(len(apart), len(ours), floor, limits)
    if floor is not None:
        notes.append(f"aggregated differs from itself in {floor} of {len(ours)}")
    return GateAnswer("identity", verdict.outcome, verdict, tuple(notes))


def divergences(ours: Sequence[Sample], theirs: Sequence[Sample]) -> list[Divergence]:
    """Return where answers part, in the order of sending."""
    pairs = zip(ours, _partners(ours, theirs), strict=True)
    found = (compare(one, other) for one, other in pairs)
    return [divergence for divergence in found if divergence is not None]


def largest_gap(ours: Sequence[Sample], theirs: Sequence[Sample]) -> float | None:
    """Return the largest logprob gap over all pairs, None without logprobs."""
    if not theirs:
        return None
    pairs = zip(ours, _partners(ours, theirs), strict=True)
    gaps = [logprob_gap(one, other) for one, other in pairs]
    return max((gap for gap in gaps if gap is not None), default=None)


def _reference(
    ours: Sequence[Sample], expected: Expected | None, limits: Limits
) -> GateAnswer:
    if expected is None:
        return GateAnswer("reference", Outcome.UNKNOWN)
    right = count_right(ours)
    if expected.samples:
        verdict = accepted_gate(
            right, len(ours), expected.right, expected.samples, limits
        )
    else:
        verdict = reference_gate(right, len(ours), expected.score, limits)
    note = f"reference {expected.score:.3f}: {expected.source}"
    return GateAnswer("reference", verdict.outcome, verdict, (note,))


def _drift(ours: Sequence[Sample], limits: Limits) -> GateAnswer:
    count_right(ours)
    if len(ours) < FEWEST:
        note = f"{len(ours)} samples have no thirds to compare"
        return GateAnswer("drift", Outcome.CANNOT_TELL, notes=(note,))
    verdict = drift_gate([sample.score for sample in ours], limits)
    return GateAnswer("drift", verdict.outcome, verdict)


def count_right(samples: Sequence[Sample]) -> int:
    """Return how many samples are right.

    Raises:
        SpecError: a score is neither 0 nor 1.
    """
    odd = [sample.score for sample in samples if sample.score not in (0, 1)]
    if odd:
        raise SpecError(
            f"Scores of {samples[0].task!r} are not right or wrong ({odd[0]:g}).",
            hint="take gate kind 'paired', which compares scores of any kind",
        )
    return sum(sample.score == 1 for sample in samples)


def _shown(items: Sequence[object]) -> str:
    text = ", ".join(map(str, items[:SHOWN]))
    return text if len(items) <= SHOWN else f"{text} and {len(items) - SHOWN} more"
