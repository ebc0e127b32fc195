"""Versions of engines, as far as names of flags and metrics depend on them."""

from __future__ import annotations

import re

from pytest_pd.errors import SpecError

Version = tuple[int, ...]


def parse(text: str) -> Version:
    """Return the release numbers of ``0.32.0``, ``v0.32.0+cpu``, ``1.3.0rc18``.

    Raises:
        SpecError: the text begins with no number.
    """
    found = re.match(r"v?(\d{1,9}(?:\.\d{1,9})*)(?!\d)", text.strip())
    if found is None:
        raise SpecError(
            f"engine.version {text!r} is not a version.",
            hint="write it as the engine prints it, for example 0.32.0",
        )
    return tuple(int(part) for part in found.group(1).split("."))
