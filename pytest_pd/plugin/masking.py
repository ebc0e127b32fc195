"""Takes secrets out of all that a report shows, and out of warnings."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import pytest

from pytest_pd.secret import redact, redact_all


def mask_report(
    report: pytest.TestReport | pytest.CollectReport, secrets: Sequence[str]
) -> None:
    """Mask a report in place: traceback, reasons, captured output, properties.

    What holds no secret keeps its form, with the colours of a traceback.
    """
    if isinstance(report.longrepr, tuple):  # of a skip: file, line, reason
        report.longrepr = redact_all(report.longrepr, secrets)
    elif report.longrepr:
        report.longrepr = _masked(report.longrepr, secrets)
    report.sections = redact_all(report.sections, secrets)
    if isinstance(report, pytest.TestReport):
        if hasattr(report, "wasxfail"):
            report.wasxfail = redact(str(report.wasxfail), secrets)
        report.user_properties = [
            (name, _masked(value, secrets)) for name, value in report.user_properties
        ]


def mask_warning(found: warnings.WarningMessage, secrets: Sequence[str]) -> None:
    """Mask the text of a warning that was recorded, in place."""
    found.message = _masked(found.message, secrets)


def _masked(value: Any, secrets: Sequence[str]) -> Any:
    """Return a value as it is, or as masked text if its text holds a secret."""
    text = str(value)
    clean = redact(text, secrets)
    return value if clean == text else clean
