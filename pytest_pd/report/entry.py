"""Measurement -> plain values that travel on a test report, xdist or not. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_pd.errors import MeasurementError
from pytest_pd.measure.measurement import Measurement
from pytest_pd.measure.percentile import summary

PERCENTILES = ("p50", "p90", "p99")


def suite_id(path: Path) -> str:
    """Return ``<folder>/<module>`` of a test file.

    Only the last folder is kept: the same suite has the same id from a checkout,
    from a user's project, from the installed wheel, and with any rootdir.
    """
    return f"{path.parent.name}/{path.stem}"


def make_entry(
    path: Path, test_id: str, params: Mapping[str, Any], measurement: Measurement
) -> dict[str, Any]:
    """Return one pytest-benchmark entry as plain JSON values.

    Args:
        path: File of the test.
        test_id: Name of the test with its parameters in brackets.

    Raises:
        MeasurementError: no samples, or one that is not a finite number.
    """
    samples = [float(sample) for sample in measurement.samples]
    if not samples or not all(map(math.isfinite, samples)):
        raise MeasurementError(
            f"metric {measurement.metric!r} has {len(samples)} samples, "
            "not all of them finite.",
            hint="a failed request has no latency: count it, do not time it",
        )
    test = test_id.replace("topo:", "")
    name, _, inner = test.partition("[")
    # where only some samples are kept, these are the percentiles of all of them
    known = measurement.extra.get("percentiles_s")
    percentiles = known if isinstance(known, Mapping) else summary(samples)
    return {
        "name": f"{test}::{measurement.metric}",
        "fullname": f"pd::{suite_id(path)}::{test}::{measurement.metric}",
        "group": measurement.metric,
        "param": inner.removesuffix("]") or None,
        "params": {**_scalars(params), "test": name, "metric": measurement.metric},
        "iterations": measurement.iterations,
        "data": samples,
        "extra_info": {
            "unit": measurement.unit,
            "n": len(samples),
            **{name: percentiles[name] for name in PERCENTILES},
            **measurement.extra,
        },
    }


def _scalars(params: Mapping[str, Any]) -> dict[str, Any]:
    plain = (str, int, float, bool, type(None))
    return {k: v if isinstance(v, plain) else str(v) for k, v in params.items()}
