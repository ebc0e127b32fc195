"""Counters, gauges and histograms in Prometheus' text format; nothing more."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

Labels = tuple[str, ...]

BUCKETS_S = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5,
    1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
)  # fmt: skip


class Metric(Protocol):
    """Something that a page of metrics can show."""

    def lines(self) -> Iterator[str]:
        """Yield the lines of the page, type line first."""


class Counter:
    """Only goes up."""

    def __init__(self, name: str, help_text: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self._help = help_text
        self._labels = tuple(labels)
        self._values: dict[Labels, float] = {} if labels else {(): 0.0}

    def add(self, *labels: str, by: float = 1.0) -> None:
        """Add `by` to the series with these label values."""
        self._values[labels] = self._values.get(labels, 0.0) + by

    def preset(self, *labels: str) -> None:
        """Show the series with 0, so that a delta over its first use is right."""
        self._values.setdefault(labels, 0.0)

    def value(self, *labels: str) -> float:
        """Return the count of one series, 0 if it was never used."""
        return self._values.get(labels, 0.0)

    def lines(self) -> Iterator[str]:
        """Yield the lines of the page, type line first."""
        yield from _head(self.name, self._help, "counter")
        for labels, value in self._values.items():
            yield f"{self.name}{_braces(self._labels, labels)} {_number(value)}"


class Gauge:
    """Is read when the page is asked for.

    Args:
        read: Returns label values and value of every series.
    """

    def __init__(
        self,
        name: str,
        help_text: str,
        labels: Sequence[str],
        read: Callable[[], Iterable[tuple[Labels, float]]],
    ) -> None:
        self.name = name
        self._help = help_text
        self._labels = tuple(labels)
        self._read = read

    def lines(self) -> Iterator[str]:
        """Yield the lines of the page, type line first."""
        yield from _head(self.name, self._help, "gauge")
        for labels, value in self._read():
            yield f"{self.name}{_braces(self._labels, labels)} {_number(value)}"


class Histogram:
    """Durations in seconds, in the buckets `BUCKETS_S`."""

    def __init__(self, name: str, help_text: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self._help = help_text
        self._labels = tuple(labels)
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, seconds: float, *labels: str) -> None:
        """Count one duration."""
        counts = self._counts.setdefault(labels, [0] * (len(BUCKETS_S) + 1))
        counts[bisect_left(BUCKETS_S, seconds)] += 1
        self._sums[labels] = self._sums.get(labels, 0.0) + seconds

    def lines(self) -> Iterator[str]:
        """Yield the lines of the page, type line first."""
        yield from _head(self.name, self._help, "histogram")
        for labels, counts in self._counts.items():
            total = 0
            for bound, number in zip((*BUCKETS_S, None), counts, strict=True):
                total += number
                text = "+Inf" if bound is None else _number(bound)
                series = _braces((*self._labels, "le"), (*labels, text))
                yield f"{self.name}_bucket{series} {total}"
            series = _braces(self._labels, labels)
            yield f"{self.name}_sum{series} {_number(self._sums[labels])}"
            yield f"{self.name}_count{series} {total}"


def page(metrics: Iterable[Metric]) -> str:
    """Return the text of a metrics page."""
    return "".join(f"{line}\n" for metric in metrics for line in metric.lines())


def _head(name: str, help_text: str, kind: str) -> Iterator[str]:
    yield f"# HELP {name} {help_text}"
    yield f"# TYPE {name} {kind}"


def _braces(names: Labels, values: Labels) -> str:
    if not names:
        return ""
    inner = ",".join(
        f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)
    )
    return "{" + inner + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
