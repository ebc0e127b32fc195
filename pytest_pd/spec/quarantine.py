"""Tests that may fail for a while: who looks after each, why, and until when."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field

from pytest_pd.errors import SpecError
from pytest_pd.spec.base import Model
from pytest_pd.spec.document import read_document
from pytest_pd.spec.file import build

LONGEST_DAYS = 90
Text = Annotated[str, Field(min_length=3, pattern=r"\S")]


class QuarantinedSpec(Model):
    """One entry.

    Attributes:
        test: Test id; ``*`` stands for any text, every other letter for itself.
        owner: Who brings the test back.
        reason: Why it fails, best with a link.
        expires: Last day on which the entry counts.
    """

    test: Text
    owner: Text
    reason: Text
    expires: date

    def holds(self, nodeid: str) -> bool:
        """Tell whether the entry means this test."""
        parts = map(re.escape, self.test.split("*"))
        return re.fullmatch(".*".join(parts), nodeid) is not None


class QuarantineSpec(Model):
    """A quarantine file."""

    quarantine: tuple[QuarantinedSpec, ...]

    def of(self, nodeid: str) -> QuarantinedSpec | None:
        """Return the entry that means this test, or None."""
        return next((one for one in self.quarantine if one.holds(nodeid)), None)

    def unused(self, nodeids: Iterable[str]) -> tuple[QuarantinedSpec, ...]:
        """Return the entries that mean none of these tests."""
        known = list(nodeids)
        return tuple(one for one in self.quarantine if not any(map(one.holds, known)))


NOBODY = QuarantineSpec(quarantine=())


def read_quarantine(path: Path, today: date) -> QuarantineSpec:
    """Read a quarantine file whose entries all count today.

    Raises:
        SpecError: an entry has expired, runs for longer than 90 days, or something
            else in the file is wrong.
    """
    spec = build(read_document(path), QuarantineSpec)
    problems = [line for one in spec.quarantine if (line := _problem(one, today))]
    if problems:
        raise SpecError(
            "\n".join(problems),
            hint="repair the test and remove the entry, or have its owner set a new "
            "date in a reviewed change",
            where=path,
        )
    return spec


def _problem(one: QuarantinedSpec, today: date) -> str:
    if one.expires < today:
        return f"The quarantine of {one.test!r} ({one.owner}) expired on {one.expires}."
    if one.expires > today + timedelta(days=LONGEST_DAYS):
        return (
            f"The quarantine of {one.test!r} ({one.owner}) runs until {one.expires}: "
            f"more than {LONGEST_DAYS} days."
        )
    return ""
