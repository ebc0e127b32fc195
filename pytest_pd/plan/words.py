"""Reading values back out of verbatim arguments, which are the escape hatch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


def flag_value(words: Sequence[str], flag: str) -> str | None:
    """Return the last value of a flag, written with a blank or with ``=``."""
    found = None
    for word, following in pairwise((*words, "")):
        if word == flag:
            found = following
        elif word.startswith(f"{flag}="):
            found = word.removeprefix(f"{flag}=")
    return found


def flag_count(words: Sequence[str], flag: str) -> int | None:
    """Return the last value of a flag as a positive number, None for any other."""
    text = flag_value(words, flag) or ""
    return int(text) if text.isdecimal() and int(text) else None
