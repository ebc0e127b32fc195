"""Gates on scores that say how small a drop they could have seen. Pure, exact tests.

All tests are one-sided: only a loss of accuracy is an alarm. Probabilities come from
exact binomial and hypergeometric sums, so they hold for few samples as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from pytest_pd.evals.chance import (
    binomial_tail,
    critical_count,
    difference,
    fisher_p,
    share_seen,
    wilson,
)

ALPHA = 0.01
POWER = 0.8
LARGEST_DROP = 0.10
"""A gate that could not have seen this drop cannot tell, unless it fails."""
SAME = 0.01
"""Shares of one sample that differ by no more are one score. Sums in another order move
a log-likelihood by some hundredths on GPUs, and a share made of it by a quarter of that
at most; an answer that is lost moves it by tenths."""


class Outcome(StrEnum):
    """What a gate can answer."""

    PASSED = "passed"
    FAILED = "failed"
    CANNOT_TELL = "cannot tell"
    UNKNOWN = "unknown"
    """There is no score to hold against."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How strict a gate is.

    Attributes:
        alpha: Chance of an alarm when nothing is lost, at most.
        power: Chance with which the detectable drop is seen.
        tolerance: Drop that is not an alarm however sure it is.
        largest_drop: A gate that cannot see this drop with `power` cannot tell.
    """

    alpha: float = ALPHA
    power: float = POWER
    tolerance: float = 0.0
    largest_drop: float = LARGEST_DROP


USUAL = Limits()


@dataclass(frozen=True, slots=True)
class Verdict:
    """A gate's answer, with what it could have seen.

    Attributes:
        p_value: Chance of what was seen, or worse, if nothing is lost.
        effect: Drop of accuracy that was seen, as a share; negative for a gain.
        interval: 95 % interval of the drop.
        detectable: Smallest drop that would have been seen with the stated power;
            1.0 where even the loss of every right answer is no alarm.
    """

    outcome: Outcome
    p_value: float
    effect: float
    interval: tuple[float, float]
    detectable: float
    samples: int

    def __str__(self) -> str:
        low, high = self.interval
        seen = "no drop"
        if self.detectable < 1:
            seen = f"a drop of {self.detectable:.1%}"
        return (
            f"{self.outcome}: drop {self.effect:.1%} (95 % interval {low:.1%} to "
            f"{high:.1%}), p = {self.p_value:.2g}, n = {self.samples}; {seen} would "
            "have been seen"
        )


def mcnemar_p(lost: int, gained: int) -> float:
    """Return the exact one-sided McNemar probability of `lost` or more losses.

    Under no change each discordant pair is a loss with probability one half.

    Args:
        lost: Samples right on the baseline and wrong on the candidate.
        gained: Samples wrong on the baseline and right on the candidate.
    """
    return binomial_tail(lost, lost + gained, 0.5)


def paired_gate(
    baseline: Sequence[float], candidate: Sequence[float], limits: Limits = USUAL
) -> Verdict:
    """Compare the same samples on two deployments.

    A sample is lost where the candidate scores lower; for right-or-wrong scores
    this is McNemar's test, for shares the sign test of differences above `SAME`, and
    a drop of their mean up to `SAME` is tolerated.

    Args:
        baseline: Score per sample, shape (n,), for example aggregated.
        candidate: The same samples in the same order on the other, shape (n,).

    Raises:
        ValueError: the two have not the same length, or nothing in them.
    """
    if len(baseline) != len(candidate) or not baseline:
        raise ValueError(
            f"{len(baseline)} samples against {len(candidate)}: not the same ones"
        )
    n = len(baseline)
    pairs = list(zip(baseline, candidate, strict=True))
    if any(score not in (0, 1) for pair in pairs for score in pair):
        limits = replace(limits, tolerance=max(limits.tolerance, SAME))
    right = sum(one > SAME for one in baseline)
    lost = sum(is_lost(one, other) for one, other in pairs)
    gained = sum(is_lost(other, one) for one, other in pairs)
    return _verdict(
        limits,
        p_value=mcnemar_p(lost, gained),
        effect=sum(one - other for one, other in pairs) / n,
        interval=difference(lost, n, gained, n),
        detectable=detectable_pairs(n, right, min(lost, gained), limits),
        most=sum(baseline) / n,
        samples=n,
    )


def is_lost(baseline: float, candidate: float) -> bool:
    """Whether a sample scores lower on the candidate by more than `SAME`."""
    return baseline - candidate > SAME


def detectable_losses(alpha: float, gained: int = 0) -> int:
    """Return how many losses are significant beside `gained` gains."""
    losses = gained + 1
    while mcnemar_p(losses, gained) > alpha:
        losses += 1
    return losses


def detectable_pairs(samples: int, right: int, noise: int, limits: Limits) -> float:
    """Return the smallest drop that the paired test sees; 1.0 if it sees none.

    Args:
        right: Samples right on the baseline: no others can be lost.
        noise: Samples gained by chance, and as many lost; the drop comes on top.
    """
    needed = detectable_losses(limits.alpha, noise)
    if needed > right:
        return 1.0
    return max(0.0, share_seen(samples, needed, limits.power) - noise / samples)


def reference_gate(
    right: int, samples: int, reference: float, limits: Limits = USUAL
) -> Verdict:
    """Test a score against a stated reference score, one-sided.

    Args:
        right: Samples answered right.
        reference: Accuracy that is expected, a share; taken as exact.
    """
    low, high = wilson(right, samples)
    return _verdict(
        limits,
        p_value=binomial_tail(samples - right, samples, 1 - reference),
        effect=reference - right / samples,
        interval=(reference - high, reference - low),
        detectable=detectable_drop(samples, reference, limits),
        most=reference,
        samples=samples,
    )


def accepted_gate(
    right: int, samples: int, was_right: int, of_samples: int, limits: Limits = USUAL
) -> Verdict:
    """Test a score against one that was itself measured, by Fisher's exact test.

    Args:
        was_right: Samples right when the score was accepted, of `of_samples`.
    """
    wrong, was_wrong = samples - right, of_samples - was_right
    return _verdict(
        limits,
        p_value=fisher_p(wrong, samples, was_wrong, of_samples),
        effect=was_right / of_samples - right / samples,
        interval=difference(wrong, samples, was_wrong, of_samples),
        detectable=_detectable_fisher(samples, was_wrong, of_samples, limits),
        most=was_right / of_samples,
        samples=samples,
    )


def detectable_drop(samples: int, reference: float, limits: Limits = USUAL) -> float:
    """Return the smallest drop, in steps of 0.1 %, that the reference test sees.

    1.0 if it sees none.
    """
    critical = critical_count(samples, 1 - reference, limits.alpha)
    if critical > samples:
        return 1.0
    return max(0.0, share_seen(samples, critical, limits.power) - (1 - reference))


def drift_gate(right: Sequence[float], limits: Limits = USUAL) -> Verdict:
    """Compare the last third of a run with its first, by Fisher's exact test.

    Damage that grows with the number of requests leaves the mean almost alone and
    the order not.

    Args:
        right: Right or wrong per sample in the order of sending, shape (n,).

    Raises:
        ValueError: fewer than 9 samples.
    """
    if len(right) < 9:
        raise ValueError(f"{len(right)} samples have no thirds to compare")
    third = len(right) // 3
    wrong_first = third - sum(map(bool, right[:third]))
    wrong_last = third - sum(map(bool, right[-third:]))
    return _verdict(
        limits,
        p_value=fisher_p(wrong_last, third, wrong_first, third),
        effect=(wrong_last - wrong_first) / third,
        interval=difference(wrong_last, third, wrong_first, third),
        detectable=_detectable_fisher(third, wrong_first, third, limits),
        most=(third - wrong_first) / third,
        samples=len(right),
    )


def _detectable_fisher(n: int, other_wrong: int, other_n: int, limits: Limits) -> float:
    """Return the drop that Fisher's test sees when the other side stays as it is.

    1.0 if it sees none.
    """
    low, high = 0, n + 1
    while low < high:  # the chance falls with the count, so halving finds it
        middle = (low + high) // 2
        if fisher_p(middle, n, other_wrong, other_n) < limits.alpha:
            high = middle
        else:
            low = middle + 1
    if low > n:
        return 1.0
    return max(0.0, share_seen(n, low, limits.power) - other_wrong / other_n)


def _verdict(
    limits: Limits,
    *,
    p_value: float,
    effect: float,
    interval: tuple[float, float],
    detectable: float,
    most: float,
    samples: int,
) -> Verdict:
    """Return the answer; `most` is the drop if every right answer were lost."""
    detectable = max(detectable, limits.tolerance if limits.tolerance < most else 1.0)
    if p_value < limits.alpha and effect > limits.tolerance:
        outcome = Outcome.FAILED
    elif detectable <= max(limits.largest_drop, limits.tolerance):
        outcome = Outcome.PASSED
    else:
        outcome = Outcome.CANNOT_TELL
    return Verdict(outcome, p_value, effect, interval, detectable, samples)
