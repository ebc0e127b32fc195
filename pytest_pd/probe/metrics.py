"""Prometheus pages, read with forgiveness: counters by name and labels."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*,?')
ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a page: a name, labels and a value."""

    name: str
    labels: Labels
    value: float


@dataclass(frozen=True, slots=True)
class Page:
    """A scraped page.

    Attributes:
        values: (name, labels) to value; the last of equal lines wins.
        skipped: Lines that were no metric; kept to be shown.
    """

    values: Mapping[tuple[str, Labels], float] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()

    def series(self, query: str) -> Iterator[Series]:
        """Yield what matches ``name`` or ``name{label="v"}``, other labels free."""
        name, wanted = parse_query(query)
        for (found, labels), value in self.values.items():
            if found == name and wanted <= labels:
                yield Series(found, labels, value)

    def total(self, query: str) -> float | None:
        """Return the sum over matching series; None when there is none.

        NaN series are left out: exporters write them for "not yet observed".
        """
        values = [s.value for s in self.series(query) if not math.isnan(s.value)]
        return math.fsum(values) if values else None

    def label_totals(self, query: str, label: str) -> dict[str, float]:
        """Return the sum per value of one label."""
        found: dict[str, float] = {}
        for series in self.series(query):
            key = dict(series.labels).get(label)
            if key is not None and not math.isnan(series.value):
                found[key] = found.get(key, 0.0) + series.value
        return found


def parse_page(text: str) -> Page:
    """Read a page in Prometheus or OpenMetrics text form; never raises."""
    values: dict[tuple[str, Labels], float] = {}
    skipped = []
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        series = parse_line(line)
        if series is None:
            skipped.append(line)
        else:
            values[series.name, series.labels] = series.value
    return Page(values, tuple(skipped))


def parse_line(line: str) -> Series | None:
    """Read ``name{labels} value [timestamp] [# exemplar]``; None if it is not one."""
    match = re.match(r"[a-zA-Z_:][a-zA-Z0-9_:]*", line)
    if match is None:
        return None
    labels, rest = parse_labels(line[match.end() :])
    if labels is None:
        return None
    words = rest.split()
    try:
        return Series(match.group(), labels, float(words[0]))
    except (IndexError, ValueError):
        return None


def parse_labels(text: str) -> tuple[Labels | None, str]:
    """Read an optional ``{...}`` and return what follows it.

    Values may hold commas, braces and escaped quotes.
    """
    text = text.lstrip()
    if not text.startswith("{"):
        return frozenset(), text
    position, found = 1, []
    while match := LABEL.match(text, position):
        value = re.sub(r"\\.", lambda m: ESCAPES.get(m[0], m[0]), match[2])
        found.append((match[1], value))
        position = match.end()
    rest = text[position:].lstrip()
    return (frozenset(found), rest[1:]) if rest.startswith("}") else (None, "")


def parse_query(query: str) -> tuple[str, Labels]:
    """Split ``name{label="v"}``.

    Raises:
        ValueError: the query is no metric name.
    """
    series = parse_line(f"{query} 0")
    if series is None:
        raise ValueError(f'{query!r} is not name or name{{label="value"}}')
    return series.name, series.labels


def increase(before: Page, after: Page, query: str) -> float | None:
    """Return how much a counter grew between two pages of one process.

    A series that is new began at 0, as counters appear with their first use. One
    that went down was reset by a restart: it has grown by what it shows now
    (as Prometheus' ``increase`` does).

    Returns:
        None when neither page has the metric.
    """
    total, seen = 0.0, False
    for series in after.series(query):
        if math.isnan(series.value):
            continue
        old = before.values.get((series.name, series.labels), 0.0)
        grown = series.value - (0.0 if math.isnan(old) else old)
        total += grown if grown >= 0 else series.value
        seen = True
    return total if seen or before.total(query) is not None else None


def was_reset(before: Page, after: Page, query: str) -> bool:
    """Whether a counter went down: the process was restarted in between."""
    return any(
        series.value < before.values.get((series.name, series.labels), -math.inf)
        for series in after.series(query)
    )
