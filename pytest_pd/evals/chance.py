"""Exact chances of counts, and intervals of shares. Pure; sums are in logarithms.

A benchmark has up to 14,042 samples (mmlu): ``comb(n, k)`` does not fit a float there.
"""

from __future__ import annotations

import math

Z95 = 1.959963984540054
"""Normal quantile of a 95 % interval."""


def binomial_tail(successes: int, trials: int, p: float) -> float:
    """Return P(X >= successes) for X binomial with `trials` and `p`."""
    if successes <= 0:
        return 1.0
    if successes > trials or p <= 0:
        return 0.0
    if p >= 1:
        return 1.0
    terms = (_log_binomial(k, trials, p) for k in range(successes, trials + 1))
    return min(1.0, math.fsum(map(math.exp, terms)))


def _log_binomial(k: int, n: int, p: float) -> float:
    return _log_choose(n, k) + k * math.log(p) + (n - k) * math.log1p(-p)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def critical_count(trials: int, p: float, alpha: float) -> int:
    """Return the smallest count whose tail is below `alpha`; ``trials + 1`` if none.

    The tail falls with the count, so halving finds it.
    """
    low, high = 0, trials + 1
    while low < high:
        middle = (low + high) // 2
        if binomial_tail(middle, trials, p) < alpha:
            high = middle
        else:
            low = middle + 1
    return low


def share_seen(trials: int, critical: int, power: float) -> float:
    """Return the smallest share, in steps of 0.1 %, that reaches `critical`.

    Reaches it with chance `power` or more, in `trials`; 1.0 when none does.
    """
    low, high = 0, 1000
    while low < high:
        middle = (low + high) // 2
        if binomial_tail(critical, trials, middle / 1000) >= power:
            high = middle
        else:
            low = middle + 1
    return low / 1000


def fisher_p(wrong: int, n: int, other_wrong: int, other_n: int) -> float:
    """Return the one-sided chance of `wrong` or more among `n`, margins given.

    Fisher's exact test: hypergeometric over the pooled wrong answers.
    """
    total, all_wrong = n + other_n, wrong + other_wrong
    if wrong <= max(0, all_wrong - other_n):
        return 1.0
    whole = _log_choose(total, all_wrong)
    terms = (
        _log_choose(n, k) + _log_choose(other_n, all_wrong - k) - whole
        for k in range(wrong, min(n, all_wrong) + 1)
    )
    return min(1.0, math.fsum(map(math.exp, terms)))


def wilson(count: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a share by Wilson's score; never of width zero.

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209.
    """
    share, z2 = count / trials, Z95**2 / trials
    middle = (share + z2 / 2) / (1 + z2)
    spread = Z95 * math.sqrt((share * (1 - share) + z2 / 4) / trials) / (1 + z2)
    return max(0.0, middle - spread), min(1.0, middle + spread)


def difference(
    count: int, trials: int, other: int, other_trials: int
) -> tuple[float, float]:
    """Return the 95 % interval of ``count/trials - other/other_trials``.

    Source: Newcombe's square-and-add of two Wilson intervals, Statist. Med. 17
    (1998) 873, method 10.
    """
    one, two = count / trials, other / other_trials
    low, high = wilson(count, trials)
    other_low, other_high = wilson(other, other_trials)
    return (
        one - two - math.hypot(one - low, other_high - two),
        one - two + math.hypot(high - one, two - other_low),
    )
