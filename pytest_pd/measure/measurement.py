"""The record of truth of everything measured; pytest-benchmark is one of its sinks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Samples of one metric, with unit and provenance.

    Attributes:
        metric: Name from docs/reference/metrics.md, for example ``ttft``.
        samples: Shape (n,), n >= 1, in the order they finished. Seconds, or
            seconds per unit of work, so that bigger is always worse.
        unit: ``s``, ``s/token``, ``s/request``, ``s/byte``.
        iterations: Units of work in one sample, as pytest-benchmark means it.
        extra: Plain JSON values stored beside the entry (human figures with
            unit, percentiles, calibration, validity).
    """

    metric: str
    samples: tuple[float, ...]
    unit: str = "s"
    iterations: int = 1
    extra: Mapping[str, Json] = field(default_factory=dict)
