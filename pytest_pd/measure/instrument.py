"""Is the instrument good enough for what it measured?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from pytest_pd.load.calibrate import Calibration
from pytest_pd.load.result import LoadResult
from pytest_pd.measure.latency import latencies

ERROR_SHARE = 0.1


def calibrated(
    result: LoadResult, calibration: Calibration, *, error_share: float = ERROR_SHARE
) -> LoadResult:
    """Return `result` with its calibration, and invalid if the error is too large.

    Args:
        error_share: The p99 of the instrument's error may be this share of the
            measured median of TTFT, and of ITL.
    """
    reasons = tuple(too_coarse(result, calibration, error_share))
    instrument = replace(result.instrument, calibration=calibration.as_json())
    return replace(result, instrument=instrument, reasons=(*result.reasons, *reasons))


def too_coarse(
    result: LoadResult, calibration: Calibration, error_share: float
) -> Iterator[str]:
    """Yield one sentence per metric that the instrument cannot resolve."""
    if not result.counts().get("ok"):
        return
    found = latencies(result)
    pairs = (
        ("TTFT", found.ttft, calibration.ttft),
        # tokens of one event have no gap that an instrument could get wrong
        ("ITL", found.itl[found.itl > 0], calibration.itl),
    )
    for name, values, error in pairs:
        if not len(values):
            continue
        median = float(np.median(values))
        if error.p99_s > error_share * median:
            yield (
                f"the instrument's {name} error p99 {error.p99_s * 1e6:.3g} us is "
                f"above {error_share:.0%} of the median {median * 1e6:.4g} us"
            )
