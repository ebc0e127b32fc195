"""Gates on scores that say how small a drop they could have seen. Pure, exact tests.

All tests are one-sided: only a loss of accuracy is an alarm. Probabilities come from
exact binomial and hypergeometric sums, so they hold for few samples as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

ALPHA = 0.01
POWER = 0.8


class Outcome(StrEnum):
    """What a gate can answer."""

    PASSED = "passed"
    FAILED = "failed"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A gate's answer, with what it could have seen.

    Attributes:
        p_value: Chance of what was seen, or worse, if nothing is lost.
        effect: Drop of accuracy that was seen, as a share; negative for a gain.
        interval: 95 % interval of the drop.
        detectable: Smallest drop that would have been seen with the stated power.
    """

    outcome: Outcome
    p_value: float
    effect: float
    interval: tuple[float, float]
    detectable: float
    samples: int

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.outcome}: drop {self.effect:.1%} (95 % interval {low:.1%} to "
            f"{high:.1%}), p = {self.p_value:.2g}, n = {self.samples}; a drop of "
            f"{self.detectable:.1%} would have been seen"
        )


def binomial_tail(successes: int, trials: int, p: float) -> float:
    """Return P(X >= successes) for X binomial with `trials` and `p`, exactly."""
    return math.fsum(
        math.comb(trials, k) * p**k * (1 - p) ** (trials - k)
        for k in range(max(0, successes), trials + 1)
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
    baseline: Sequence[bool],
    candidate: Sequence[bool],
    *,
    alpha: float = ALPHA,
    tolerance: float = 0.0,
) -> Verdict:
    """Compare the same samples on two deployments.

    Args:
        baseline: Right or wrong per sample, shape (n,), for example aggregated.
        candidate: The same samples in the same order on the other, shape (n,).
        tolerance: Drop that is not an alarm however sure it is.

    Raises:
        ValueError: the two have not the same length, or nothing in them.
    """
    if len(baseline) != len(candidate) or not baseline:
        raise ValueError(
            f"{len(baseline)} samples against {len(candidate)}: not the same ones"
        )
    n = len(baseline)
    pairs = list(zip(baseline, candidate, strict=True))
    lost, gained = pairs.count((True, False)), pairs.count((False, True))
    p_value, effect = mcnemar_p(lost, gained), (lost - gained) / n
    detectable = detectable_losses(alpha) / n
    spread = 1.96 * math.sqrt(max(lost + gained - (lost - gained) ** 2 / n, 0)) / n
    return Verdict(
        _outcome(p_value, effect, detectable, alpha, tolerance),
        p_value,
        effect,
        (effect - spread, effect + spread),
        detectable,
        n,
    )


def detectable_losses(alpha: float) -> int:
    """Return how many losses without a gain are significant: 2**-k <= alpha."""
    return math.ceil(-math.log2(alpha))


def reference_gate(
    right: int,
    samples: int,
    reference: float,
    *,
    alpha: float = ALPHA,
    power: float = POWER,
    largest_drop: float = 0.05,
) -> Verdict:
    """Test a score against a stated reference score, one-sided.

    Args:
        right: Samples answered right.
        reference: Accuracy that is expected, a share.
        largest_drop: A gate that could not have seen this drop with the stated
            power cannot tell, unless it fails.
    """
    wrong = samples - right
    p_value = binomial_tail(wrong, samples, 1 - reference)
    score = right / samples
    detectable = detectable_drop(samples, reference, alpha=alpha, power=power)
    spread = 1.96 * math.sqrt(max(score * (1 - score), 1e-12) / samples)
    effect = reference - score
    if p_value < alpha:
        outcome = Outcome.FAILED
    else:
        seen = detectable <= largest_drop
        outcome = Outcome.PASSED if seen else Outcome.CANNOT_TELL
    return Verdict(
        outcome,
        p_value,
        effect,
        (effect - spread, effect + spread),
        detectable,
        samples,
    )


def detectable_drop(
    samples: int, reference: float, *, alpha: float = ALPHA, power: float = POWER
) -> float:
    """Return the smallest drop, in steps of 0.1 %, that the test sees with `power`."""
    critical = next(
        k
        for k in range(samples + 2)
        if binomial_tail(k, samples, 1 - reference) < alpha
    )
    for step in range(1, 1001):
        worse = min(1.0, 1 - reference + step / 1000)
        if binomial_tail(critical, samples, worse) >= power:
            return step / 1000
    return 1.0


def drift_gate(right: Sequence[bool], *, alpha: float = ALPHA) -> Verdict:
    """Compare the last third of a run with its first, by Fisher's exact test.

    Damage that grows with the number of requests leaves the mean almost alone and
    the order not.

    Raises:
        ValueError: fewer than 9 samples.
    """
    if len(right) < 9:
        raise ValueError(f"{len(right)} samples have no thirds to compare")
    third = len(right) // 3
    wrong_first = third - sum(right[:third])
    wrong_last = third - sum(right[-third:])
    p_value = fisher_p(wrong_last, third, wrong_first, third)
    effect = (wrong_last - wrong_first) / third
    detectable = next(
        (k for k in range(third + 1) if fisher_p(k, third, 0, third) < alpha), third
    )
    spread = 1.96 * math.sqrt(max(wrong_first + wrong_last, 0)) / third
    return Verdict(
        _outcome(p_value, effect, detectable / third, alpha, 0.0),
        p_value,
        effect,
        (effect - spread, effect + spread),
        detectable / third,
        len(right),
    )


def fisher_p(wrong: int, n: int, other_wrong: int, other_n: int) -> float:
    """Return the one-sided chance of `wrong` or more among `n`, margins given."""
    total, all_wrong = n + other_n, wrong + other_wrong
    ways = math.comb(total, all_wrong)
    return (
        sum(
            math.comb(n, k) * math.comb(other_n, all_wrong - k)
            for k in range(wrong, min(n, all_wrong) + 1)
            if all_wrong - k <= other_n
        )
        / ways
    )


def _outcome(
    p_value: float, effect: float, detectable: float, alpha: float, tolerance: float
) -> Outcome:
    if p_value < alpha and effect > tolerance:
        return Outcome.FAILED
    return Outcome.PASSED if detectable < 0.5 else Outcome.CANNOT_TELL
