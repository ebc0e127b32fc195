"""Any chart as the markup of a page, and the table that goes beside it. Pure."""

from __future__ import annotations

from pytest_pd.report.chart import Bars, Chart, Plot, Timeline
from pytest_pd.report.html import details, table
from pytest_pd.report.svg import plot
from pytest_pd.report.svg_bars import bars
from pytest_pd.report.svg_timeline import timeline
from pytest_pd.report.words import digits, duration


def draw(chart: Chart) -> str:
    """Return the drawing; empty when there is nothing to show."""
    match chart:
        case Plot():
            return plot(chart)
        case Bars():
            return bars(chart)
        case Timeline():
            return timeline(chart)


def table_of(chart: Chart) -> str:
    """Return the values of a chart as a table, folded where there are many."""
    match chart:
        case Plot():
            rows = [
                (line.name, digits(at), digits(value))
                for line in chart.series
                for at, value in line.points
            ]
            head = ("line", chart.x.label, chart.y.label)
            values = table("Values", head, rows, numbers_from=1, name=chart.title)
            return details(f"Values: {chart.title}", values)
        case Bars():
            return _bar_table(chart)
        case Timeline():
            return _span_table(chart)


def with_table(chart: Chart) -> str:
    """Return the drawing with its table under it, as one part of a grid."""
    drawn = draw(chart)
    return f'<div class="pair">{drawn}{table_of(chart)}</div>' if drawn else ""


def _bar_table(chart: Bars) -> str:
    columns = [("value", "value"), ("low", "from"), ("high", "to")]
    if chart.mark:
        columns.append(("mark", chart.mark))
    used = [
        (name, words)
        for name, words in columns
        if any(getattr(bar, name) is not None for bar in chart.bars)
    ]
    rows = [
        (bar.label, *(digits(getattr(bar, name)) for name, _ in used))
        for bar in chart.bars
    ]
    told = dict(used)
    told["value"] = chart.axis.label
    head = ("name", *told.values())
    return table("Values", head, rows, numbers_from=1, name=chart.title)


def _span_table(chart: Timeline) -> str:
    rows = [
        (
            span.words,
            chart.lanes[span.lane][0],
            chart.kinds[span.kind],
            f"{span.start_s:.4f} s",
            duration(span.end_s - span.start_s),
        )
        for span in chart.spans
    ]
    head = ("request", "lane", "what", "from", "took")
    words = f"{len(rows)} spans of {chart.title}"
    return details(words, table(chart.title, head, rows, numbers_from=3))
