"""Charts as data: what is shown, without a word about how it is drawn. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a plot; `points` are (x, y), drawn in the order given."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its label with unit, and whether it is logarithmic."""

    label: str
    is_log: bool = False


@dataclass(frozen=True, slots=True)
class Plot:
    """Lines over an axis of figures.

    Attributes:
        marks: (x, words) of vertical rules, for example change points.
    """

    name: str
    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    markers: bool = True
    marks: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of a bar chart.

    Attributes:
        low, high: Interval or range around `value`; None for none.
        mark: What the value is held against: a bound, a fair share.
        group: Index of the colour.
    """

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    mark: float | None = None
    group: int = 0


@dataclass(frozen=True, slots=True)
class Bars:
    """Figures of named things, one under the other.

    Attributes:
        interval: What `Bar.low` and `Bar.high` are, in words.
        mark: What `Bar.mark` is, in words.
    """

    name: str
    title: str
    axis: Axis
    bars: tuple[Bar, ...]
    interval: str = ""
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """One stretch of time of one request.

    Attributes:
        lane: Index into `Timeline.lanes`.
        row: Inside of the lane; spans of one row do not overlap.
        kind: Index into `Timeline.kinds`.
    """

    lane: int
    row: int
    kind: int
    start_s: float
    end_s: float
    words: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """Requests over time, in lanes.

    Attributes:
        lanes: (name, number of rows) from top to bottom.
        kinds: What a span can be, in words.
    """

    name: str
    title: str
    lanes: tuple[tuple[str, int], ...]
    kinds: tuple[str, ...]
    spans: tuple[Span, ...]


Chart = Plot | Bars | Timeline
