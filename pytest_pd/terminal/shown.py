"""What ``pytest-pd load`` says of a measured point."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pytest_pd.errors import MeasurementError
from pytest_pd.load.calibrate import Calibration
from pytest_pd.load.result import LoadResult
from pytest_pd.measure.goodput import goodput
from pytest_pd.measure.latency import measurements
from pytest_pd.spec.slo import SloSpec
from pytest_pd.terminal.view import as_table


def figures_of(
    result: LoadResult, slo: SloSpec | None
) -> tuple[LoadResult, dict[str, Any]]:
    """Return the figures, and `result` with the reason if it can have no goodput."""
    if not result.counts().get("ok"):
        return result, {}
    figures: dict[str, Any] = {"measurements": measurements(result)}
    if slo is not None and not slo.is_empty:
        try:
            figures["goodput"] = goodput(result, slo)
        except MeasurementError as error:
            result = replace(result, reasons=(*result.reasons, error.fact))
    return result, figures


def show(label: str, result: LoadResult, entry: dict[str, Any]) -> None:
    """Print a point's table, what is wrong with it, and its first failures."""
    print(as_table(label, result, entry))
    found = result.instrument.calibration
    if found:
        print(Calibration.from_json(dict(found)).line())
    for reason in result.reasons:
        print(f"INVALID: {reason}")
    counts = result.counts()
    if failed := sum(counts.values()) - counts.get("ok", 0):
        print(f"FAILED: {failed} of {sum(counts.values())} requests")
    for index, text in list(entry["errors"].items())[:3]:
        print(f"failure of request {index}: {text}")
    print(flush=True)
