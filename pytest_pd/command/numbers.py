"""Numbers on a command line that have a range, for ``type=`` of argparse."""

from __future__ import annotations

import argparse
import math


def share(text: str) -> float:
    """Return a number above 0 and below 1.

    Raises:
        ArgumentTypeError: it is none.
    """
    number = _number(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share above 0 and below 1")
    return number


def zero_or_more(text: str) -> float:
    """Return a finite number that is not negative.

    Raises:
        ArgumentTypeError: it is none.
    """
    number = _number(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 on")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
