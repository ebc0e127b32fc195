"""Do times grow over the iterations? Slope and its significance, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import erfc, sqrt
from statistics import median


@dataclass(frozen=True, slots=True)
class Growth:
    """Trend of samples over their order.

    Attributes:
        slope_s: Seconds per iteration (Theil-Sen: median of all pairs' slopes).
        relative: Growth from first to last sample on that slope, by the median.
        p_value: Chance of such an order without a trend (Mann-Kendall, two-sided).
    """

    slope_s: float
    relative: float
    p_value: float

    @property
    def is_finding(self) -> bool:
        """Worth telling: grows by more than a tenth, and hardly by chance."""
        return self.relative > 0.1 and self.p_value < 0.01


def growth(samples_s: Sequence[float]) -> Growth:
    """Return the trend of `samples_s`, in seconds; none for fewer than 5.

    Source: Sen 1968 for the slope; Mann 1945, Kendall 1975 for the test, normal
    approximation with continuity correction, without ties.
    """
    n = len(samples_s)
    if n < 5:
        return Growth(0.0, 0.0, 1.0)
    pairs = list(combinations(range(n), 2))
    slope = median((samples_s[j] - samples_s[i]) / (j - i) for i, j in pairs)
    score = sum(
        (samples_s[j] > samples_s[i]) - (samples_s[j] < samples_s[i]) for i, j in pairs
    )
    deviation = sqrt(n * (n - 1) * (2 * n + 5) / 18)
    z = max(0.0, abs(score) - 1) / deviation
    middle = median(samples_s)
    relative = slope * (n - 1) / middle if middle > 0 else 0.0
    return Growth(slope, relative, erfc(z / sqrt(2)))
