"""Bar charts as inline SVG, the label of a bar above it so that phones can read it."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from pytest_pd.report.chart import Bar, Bars
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

LEFT, TOP, FOOT = 16, 4, 46
LINE = 44
"""Height of one bar with its label."""


def bars(chart: Bars) -> str:
    """Return a figure; empty without a bar.

    On a logarithmic axis, which has no 0 to start from, a bar is a dot.
    """
    values = [value for bar in chart.bars for value in _values(bar)]
    shown = [v for v in values if v > 0 or not chart.axis.is_log]
    if not shown:
        return ""
    scale = scale_of(shown, chart.axis, LEFT, WIDTH - RIGHT - 60)
    bottom = TOP + LINE * len(chart.bars)
    body = [*_grid(chart, scale, bottom)]
    for index, bar in enumerate(chart.bars):
        body += _bar(bar, scale, TOP + LINE * index, is_log=chart.axis.is_log)
    return framed(chart.title, _words(chart), bottom + FOOT, "".join(body), _key(chart))


def _values(bar: Bar) -> Iterator[float]:
    yield from (v for v in (bar.value, bar.low, bar.high, bar.mark) if v is not None)


def _grid(chart: Bars, scale: Scale, bottom: float) -> Iterator[str]:
    for value in scale.ticks():
        at = scale.px(value)
        yield f'<path class="grid" d="M{at:.1f} {TOP}V{bottom}"/>'
        yield text_at(at, bottom + 16, short(value), "middle")
    yield text_at((LEFT + WIDTH) / 2, bottom + 38, chart.axis.label, "middle")


def _bar(bar: Bar, scale: Scale, top: float, *, is_log: bool) -> Iterator[str]:
    colour = f"c{bar.group % COLOURS}"
    middle, end = top + 31, scale.px(bar.value)
    yield text_at(LEFT, top + 17, bar.label, "start")
    if is_log:
        yield f'<circle class="mark {colour}" cx="{end:.1f}" cy="{middle}" r="6"/>'
    else:
        width = max(end - LEFT, 0.5)
        box = f'x="{LEFT}" y="{middle - 7}" width="{width:.1f}" height="14"'
        yield f'<rect class="mark {colour}" {box}/>'
    low, high = (scale.px(v) if v else LEFT for v in (bar.low, bar.high))
    if bar.low is not None and bar.high is not None:
        ends = f"M{low:.1f} {middle - 5}v10M{high:.1f} {middle - 5}v10"
        yield f'<path class="whisker" d="M{low:.1f} {middle}H{high:.1f}{ends}"/>'
    if bar.mark is not None and (bar.mark > 0 or not is_log):
        at = scale.px(bar.mark)
        yield f'<path class="bound" d="M{at:.1f} {middle - 11}v22"/>'
    right = max(end, high if bar.high is not None else end)
    yield text_at(right + 10, middle + 4, short(bar.value), "start")


def _words(chart: Bars) -> str:
    told = ", ".join(f"{bar.label} {short(bar.value)}" for bar in chart.bars)
    return f"{chart.title}. {chart.axis.label}: {told}. The table has the values."


def _key(chart: Bars) -> str:
    items = []
    for words, kind, path in (
        (chart.interval, "whisker", "M1 6h14M1 2v8M15 2v8"),
        (chart.mark, "bound", "M8 0v12"),
    ):
        if words:
            drawn = f'<path class="{kind}" d="{path}"/>'
            key = f'<svg viewBox="0 0 16 12" aria-hidden="true">{drawn}</svg>'
            items.append(f"<li>{key}{escape(words)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>' if items else ""
