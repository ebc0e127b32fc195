"""Are raw answers at temperature 0 the same, and where do they part? Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TypeVar

from pytest_pd.evals.chance import wilson
from pytest_pd.evals.gate import Limits, Outcome, Verdict, accepted_gate
from pytest_pd.evals.sample import Sample
from pytest_pd.measure.agree import first_divergence

T = TypeVar("T")

LOGPROB_TOLERANCE = 0.01
"""Log-likelihoods of one continuation that differ by less are one answer: sums of
float32 in another order differ by about 1e-5, a wrong block of KV by whole units."""

FLOOR_TOLERANCE = 0.20
"""Share of answers by which P/D may differ more often than aggregated from itself,
where a gate says nothing else. One worker asked twice shows what its batches change;
P/D decodes in other batches and at times on another number of GPUs, which changes the
order of every bf16 sum. A second cause as strong as a floor of 10 to 25 % adds 9 to
19 % of answers that part, with as many right; ``paired`` sees those that are lost."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where two answers to one question part.

    Attributes:
        token: Index of the first token that differs; of the first choice, where
            choices are scored.
        ours, theirs: What stands there; empty where an answer has ended.
        logprobs: Log-probability of each, where the servers tell.
    """

    task: str
    doc_id: int
    token: int
    ours: str
    theirs: str
    logprobs: tuple[float | None, float | None] = (None, None)

    def __str__(self) -> str:
        text = (
            f"{self.task} #{self.doc_id} at token {self.token}: {self.ours!r} "
            f"against {self.theirs!r}"
        )
        ours, theirs = self.logprobs
        if ours is None or theirs is None:
            return text
        return f"{text} (logprob {ours:.3f} against {theirs:.3f})"


def compare(ours: Sample, theirs: Sample) -> Divergence | None:
    """Return where two answers to one question part, or None."""
    one, other = loglikelihoods(ours), loglikelihoods(theirs)
    if one and len(one) == len(other):
        return _of_choices(ours, one, other)
    one_text, other_text = answer_parts(ours, theirs)
    place = first_divergence(one_text, other_text)
    if place is None:
        same = ours.answers == theirs.answers
        return None if same else Divergence(*ours.key, len(one_text), "", "")
    return Divergence(
        *ours.key,
        place,
        _at(one_text, place, ""),
        _at(other_text, place, ""),
        (_logprob(ours, one_text, place), _logprob(theirs, other_text, place)),
    )


def answer_parts(
    ours: Sample, theirs: Sample
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the tokens of two generated answers; the words unless both told tokens."""
    one, other = _tokens(ours), _tokens(theirs)
    return (one, other) if one and other else (_words(ours), _words(theirs))


def _tokens(sample: Sample) -> tuple[str, ...]:
    replies = sorted(sample.replies, key=lambda reply: reply.sent)
    return tuple(token for reply in replies for token in reply.tokens)


def _words(sample: Sample) -> tuple[str, ...]:
    return tuple(word for text in sample.answers for word in text.split())


def loglikelihoods(sample: Sample) -> tuple[float, ...]:
    """Return the log-likelihood of each choice; empty for generated answers."""
    found = tuple(_loglikelihood(answer) for answer in sample.answers)
    return tuple(value for value in found if value is not None)


def _loglikelihood(answer: str) -> float | None:
    """Read ``["-1.5", "False"]``, as lm-eval logs a scored continuation."""
    try:
        value, is_greedy = json.loads(answer)
        return float(value) if str(is_greedy) in ("True", "False") else None
    except (ValueError, TypeError):
        return None


def _of_choices(
    sample: Sample, ours: Sequence[float], theirs: Sequence[float]
) -> Divergence | None:
    for place, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        if abs(one - other) > LOGPROB_TOLERANCE:
            texts = (f"{one:.4f}", f"{other:.4f}")
            return Divergence(*sample.key, place, *texts, (one, other))
    return None


def logprob_gap(ours: Sample, theirs: Sample) -> float | None:
    """Return the largest difference of logprobs while both say the same.

    None where the servers tell no logprobs. Answers of one text and growing gaps are
    the first sign of damage.
    """
    one, other = loglikelihoods(ours), loglikelihoods(theirs)
    if not one:
        pairs = zip(*answer_parts(ours, theirs), strict=False)
        same = list(takewhile(lambda pair: pair[0] == pair[1], pairs))
        one, other = _logprobs(ours)[: len(same)], _logprobs(theirs)[: len(same)]
    gaps = [abs(a - b) for a, b in zip(one, other, strict=False)]
    return max(gaps) if gaps else None


def identity_gate(
    differing: int, samples: int, floor: int | None, limits: Limits
) -> Verdict:
    """Judge how many answers differ.

    Args:
        differing: Answers of P/D that differ from aggregated.
        floor: Answers of aggregated that differ from aggregated asked again, of as
            many; None where the same tokens are due: any difference fails.
    """
    if floor is not None:
        same, was_same = samples - differing, samples - floor
        return accepted_gate(same, samples, was_same, samples, limits)
    return Verdict(
        Outcome.FAILED if differing else Outcome.PASSED,
        0.0 if differing else 1.0,
        differing / samples,
        wilson(differing, samples),
        1 / samples,
        samples,
    )


def _logprobs(sample: Sample) -> tuple[float, ...]:
    replies = sorted(sample.replies, key=lambda reply: reply.sent)
    return tuple(p for reply in replies for p in reply.logprobs)


def _logprob(sample: Sample, parts: tuple[str, ...], place: int) -> float | None:
    """Return the logprob of one part of an answer; words have none."""
    logprobs = _logprobs(sample) if parts == _tokens(sample) else ()
    return _at(logprobs, place, None)


def _at(items: Sequence[T], index: int, other: T) -> T:
    return items[index] if index < len(items) else other
