"""Durations as people write them."""

from __future__ import annotations

import argparse
import re

from pytest_pd.spec.base import MOST_SECONDS

UNITS_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "": 1.0}


def duration_s(text: str) -> float:
    """Read ``90``, ``30s``, ``1h30m``, ``2d``; seconds.

    Raises:
        ArgumentTypeError: it is none of these, nothing, or more than a clock holds.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms]?)", text)
    seconds = sum(float(number) * UNITS_S[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or seconds <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 90m or 4h")
    if seconds > MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is more than {MOST_SECONDS} s")
    return seconds
