"""Verdicts beyond pytest's own: invalid and blocked. Pure but for the mark names.

To pytest both are failures with a category, so that ``-x``, ``--lf`` and the exit
code hold.
"""

from __future__ import annotations

import pytest

from pytest_pd.errors import InvalidRun, PdError

INVALID = "invalid"
BLOCKED = "blocked"
SHORT = {INVALID: ("I", "INVALID"), BLOCKED: ("B", "BLOCKED")}
MARKUP = {INVALID: {"purple": True}, BLOCKED: {"yellow": True}}


class Blocked(PdError):
    """The topology of this test broke before; the first test tells the story."""


def judge(call: pytest.CallInfo[None]) -> str | None:
    """Return ``invalid`` or ``blocked`` for the exceptions that mean them."""
    if call.excinfo is None:
        return None
    if isinstance(call.excinfo.value, InvalidRun):
        return INVALID
    return BLOCKED if isinstance(call.excinfo.value, Blocked) else None


def tells_end(report: pytest.TestReport) -> bool:
    """Tell whether a report says how a test ended.

    Not that a phase passed, and not a try that pytest-rerunfailures follows up.
    """
    if str(report.outcome) == "rerun":
        return False
    return report.when == "call" or not report.passed


def verdict_of(report: pytest.TestReport) -> str:
    """Return passed, failed, skipped, invalid, blocked or error for one report."""
    special = getattr(report, "pd_verdict", None)
    if special:
        return str(special)
    if report.failed and report.when != "call":
        return "error"
    return str(report.outcome)
