"""Do two answers say the same, and where do they part? Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest


def first_divergence(one: Sequence[object], other: Sequence[object]) -> int | None:
    """Return the index of the first token that differs, or None.

    A shorter answer diverges where it ends.
    """
    missing = object()
    pairs = zip_longest(one, other, fillvalue=missing)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), None)
