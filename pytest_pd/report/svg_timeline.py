"""Requests over time as inline SVG: one lane for each worker or phase."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from pytest_pd.report.chart import Axis, Span, Timeline
from pytest_pd.report.svg import (
    COLOURS,
    RIGHT,
    WIDTH,
    Scale,
    framed,
    scale_of,
    short,
    text_at,
)

LEFT, FOOT, HEAD = 16, 46, 24
MOST_HEIGHT = 460
ROW_LIMITS = (3.0, 12.0)
SHARES = (0.9, 0.35, 0.65, 0.5, 0.25, 0.8)
"""Height of a kind as a share of its row: kinds differ in more than colour."""


def timeline(chart: Timeline) -> str:
    """Return a figure; empty without a span."""
    if not chart.spans:
        return ""
    rows = sum(number for _, number in chart.lanes)
    room = MOST_HEIGHT - HEAD * len(chart.lanes)
    row = min(max(room / rows, ROW_LIMITS[0]), ROW_LIMITS[1])
    end_s = max(span.end_s for span in chart.spans)
    scale = scale_of([end_s], Axis("s"), LEFT, WIDTH - RIGHT)
    tops = [*_tops(chart, row)]
    bottom = tops[-1] + row * chart.lanes[-1][1] + 4
    body = [*_grid(scale, bottom), *_lanes(chart, tops)]
    body += [_span(span, scale, tops[span.lane], row) for span in chart.spans]
    lanes = ", ".join(name for name, _ in chart.lanes)
    words = f"{chart.title}. Lanes: {lanes}. The table has the values."
    return framed(chart.title, words, bottom + FOOT, "".join(body), _key(chart))


def _tops(chart: Timeline, row: float) -> Iterator[float]:
    at = 0.0
    for _, number in chart.lanes:
        yield at + HEAD
        at += HEAD + row * number


def _grid(scale: Scale, bottom: float) -> Iterator[str]:
    for value in scale.ticks():
        at = scale.px(value)
        yield f'<path class="grid" d="M{at:.1f} 4V{bottom:.1f}"/>'
        yield text_at(at, bottom + 16, short(value), "middle")
    label = "seconds from the first request shown"
    yield text_at((LEFT + WIDTH) / 2, bottom + 38, label, "middle")


def _lanes(chart: Timeline, tops: list[float]) -> Iterator[str]:
    for (name, _), top in zip(chart.lanes, tops, strict=True):
        yield text_at(LEFT, top - 6, name, "start")
        yield f'<path class="grid" d="M{LEFT} {top - 1:.1f}H{WIDTH - RIGHT}"/>'


def _span(span: Span, scale: Scale, top: float, row: float) -> str:
    share = SHARES[span.kind % len(SHARES)]
    x, end = scale.px(span.start_s), scale.px(span.end_s)
    y = top + row * (span.row + (1 - share) / 2)
    box = f'x="{x:.1f}" y="{y:.1f}" width="{max(end - x, 0.6):.1f}"'
    colour = f"mark c{span.kind % COLOURS}"
    words = f"<title>{escape(span.words)}</title>"
    return f'<rect class="{colour}" {box} height="{row * share:.1f}">{words}</rect>'


def _key(chart: Timeline) -> str:
    items = []
    for index, kind in enumerate(chart.kinds):
        high = 12 * SHARES[index % len(SHARES)]
        box = f'x="0" y="{6 - high / 2:g}" width="16" height="{high:g}"'
        drawn = f'<rect class="mark c{index % COLOURS}" {box}/>'
        key = f'<svg viewBox="0 0 16 12" aria-hidden="true">{drawn}</svg>'
        items.append(f"<li>{key}{escape(kind)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'
