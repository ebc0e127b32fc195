"""Any chart as a PNG, by matplotlib: no browser and no display is needed.

matplotlib is met here only, and imported on use (extra ``report``).
"""

from __future__ import annotations

import io
from typing import Any

from pytest_pd.errors import PdError
from pytest_pd.report.chart import Bars, Chart, Plot, Timeline

INCHES, DPI = (8.0, 4.5), 120
COLOURS = ("#0550ae", "#a8400a", "#1a7f37", "#8250df", "#a40e6b", "#57606a")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", ":", "-.", (0, (12, 4)), (0, (4, 2)))
SHARES = (0.9, 0.35, 0.65, 0.5, 0.25, 0.8)
MARK = "#a40e6b"


def png_of(chart: Chart) -> bytes:
    """Return the bytes of a PNG of 960 x 540 pixels, more for many bars.

    Raises:
        PdError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PdError(
            "PNG files need matplotlib, which is not installed.",
            hint="pip install 'pytest-pd[report]'",
        ) from error
    figure = Figure(figsize=_size(chart), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    match chart:
        case Plot():
            _lines(axes, chart)
        case Bars():
            _bars(axes, chart)
        case Timeline():
            _timeline(axes, chart)
    axes.set_title(chart.title, fontsize=11)
    axes.grid(alpha=0.3)
    sink = io.BytesIO()
    figure.savefig(sink, format="png", metadata={"Software": None})
    return sink.getvalue()


def _size(chart: Chart) -> tuple[float, float]:
    if isinstance(chart, Bars):
        return INCHES[0], max(INCHES[1], 1.5 + 0.45 * len(chart.bars))
    return INCHES


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _lines(axes: Any, chart: Plot) -> None:
    for index, line in enumerate(chart.series):
        xs, ys = zip(*line.points, strict=True) if line.points else ((), ())
        axes.plot(
            xs,
            ys,
            color=_colour(index),
            linestyle=DASHES[index // len(COLOURS) % len(DASHES)],
            marker=MARKERS[index % len(MARKERS)] if chart.markers else None,
            markersize=4,
            label=line.name,
        )
    for at, words in chart.marks:
        axes.axvline(at, color=MARK, linestyle="--", linewidth=1)
        axes.annotate(words, (at, 1), xycoords=("data", "axes fraction"), fontsize=8)
    _axes(axes, chart)
    if chart.series:
        axes.legend(fontsize=8)


def _axes(axes: Any, chart: Plot) -> None:
    axes.set_xlabel(chart.x.label)
    axes.set_ylabel(chart.y.label)
    if chart.x.is_log:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    if chart.y.is_log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)


def _bars(axes: Any, chart: Bars) -> None:
    for at, bar in enumerate(chart.bars):
        if chart.axis.is_log:
            axes.plot([bar.value], [at], "o", color=_colour(bar.group))
        else:
            axes.barh(at, bar.value, color=_colour(bar.group), height=0.6)
        if bar.low is not None and bar.high is not None:
            below, above = bar.value - bar.low, bar.high - bar.value
            error = [[max(below, 0.0)], [max(above, 0.0)]]
            axes.errorbar([bar.value], [at], xerr=error, color="black", capsize=4)
        if bar.mark is not None:
            axes.plot([bar.mark] * 2, [at - 0.4, at + 0.4], color=MARK, linewidth=3)
    axes.set_yticks(range(len(chart.bars)), [bar.label for bar in chart.bars])
    axes.invert_yaxis()
    axes.set_xlabel(_bar_words(chart))
    if chart.axis.is_log:
        axes.set_xscale("log")


def _bar_words(chart: Bars) -> str:
    more = [f"whiskers: {chart.interval}"] if chart.interval else []
    more += [f"tall mark: {chart.mark}"] if chart.mark else []
    return f"{chart.axis.label} ({'; '.join(more)})" if more else chart.axis.label


def _timeline(axes: Any, chart: Timeline) -> None:
    firsts, at = [], 0
    for _, rows in chart.lanes:
        firsts.append(at)
        at += rows + 1
    for kind, name in enumerate(chart.kinds):
        spans = [span for span in chart.spans if span.kind == kind]
        axes.barh(
            [firsts[span.lane] + span.row for span in spans],
            [span.end_s - span.start_s for span in spans],
            left=[span.start_s for span in spans],
            height=SHARES[kind % len(SHARES)],
            color=_colour(kind),
            label=name,
        )
    middles = [
        first + (rows - 1) / 2
        for first, (_, rows) in zip(firsts, chart.lanes, strict=True)
    ]
    axes.set_yticks(middles, [name for name, _ in chart.lanes])
    axes.invert_yaxis()
    axes.set_xlabel("seconds from the first request shown")
    axes.legend(fontsize=8)
