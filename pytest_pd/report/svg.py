"""Line plots as inline SVG: no script, no font, no network. Pure.

Colours come from CSS variables of the page, so that one drawing serves light and
dark. Series differ in colour, dash and marker: colour alone tells nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from pytest_pd.report.chart import Axis, Plot, Series

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 12, 46
COLOURS = 6
MOST_OWN_TICKS = 9
DASHES = ("", "7 4", "2 3", "9 3 2 3", "12 4", "4 2")


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values of one axis to pixels."""

    low: float
    high: float
    start_px: float
    end_px: float
    is_log: bool

    def px(self, value: float) -> float:
        low, high, at = map(self._bend, (self.low, self.high, value))
        return self.start_px + (at - low) / (high - low) * (self.end_px - self.start_px)

    def _bend(self, value: float) -> float:
        return math.log10(max(value, 1e-300)) if self.is_log else value

    def ticks(self) -> list[float]:
        """Return round values inside the scale, two at least."""
        found = self._decades() if self.is_log else linear_ticks(self.low, self.high)
        return found if len(found) > 1 else [self.low, self.high]

    def _decades(self) -> list[float]:
        low, high = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        steps: tuple[float, ...] = (1, 2, 5) if high - low <= 3 else (1,)
        raw = [step * 10.0**power for power in range(low, high + 1) for step in steps]
        return [v for v in raw if self.low * 0.999 <= v <= self.high * 1.001]


def linear_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return at most `most` + 1 multiples of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [
        round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)
    ]


def plot(chart: Plot) -> str:
    """Return an ``<svg>`` with its legend as a figure; empty without any point.

    Values that a logarithmic axis cannot show (zero and below) are left out.
    """
    x, y, markers = chart.x, chart.y, chart.markers
    shown = [_visible(line, x, y) for line in chart.series]
    points = [point for line in shown for point in line.points]
    if not points:
        return ""
    horizontal = scale_of([p[0] for p in points], x, LEFT, WIDTH - RIGHT)
    vertical = scale_of([p[1] for p in points], y, HEIGHT - BOTTOM, TOP)
    own = _few(points) if x.is_log and markers else ()
    body = [_grid(horizontal, vertical, x, y, own)]
    body += [_rule(horizontal.px(at), words) for at, words in chart.marks]
    for index, line in enumerate(shown):
        if line.points:
            body.append(_line(index, line, horizontal, vertical, markers))
    names = ", ".join(line.name for line in shown)
    words = f"{chart.title}. Lines: {names}. The table has the values."
    return framed(chart.title, words, HEIGHT, "".join(body), _legend(shown))


def framed(title: str, words: str, height: float, body: str, legend: str = "") -> str:
    """Return a figure with a caption around the inside of an ``<svg>``."""
    return (
        f'<figure class="plot"><svg viewBox="0 0 {WIDTH} {height:g}" role="img" '
        f'aria-label="{escape(words)}">{body}</svg>{legend}'
        f"<figcaption>{escape(title)}</figcaption></figure>"
    )


def _rule(at: float, words: str) -> str:
    """Draw a vertical rule with its words beside it."""
    path = f'<path class="rule" d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}"/>'
    return path + text_at(at + 4, TOP + 12, words, "start")


def _visible(line: Series, x: Axis, y: Axis) -> Series:
    kept = tuple(
        (at, value)
        for at, value in line.points
        if math.isfinite(at)
        and math.isfinite(value)
        and (at > 0 or not x.is_log)
        and (value > 0 or not y.is_log)
    )
    return Series(line.name, kept)


def scale_of(values: Sequence[float], axis: Axis, start: float, end: float) -> Scale:
    """Return a scale that holds all values; a linear one begins at 0."""
    low, high = min(values), max(values)
    if axis.is_log:
        wide = high > low * 1.05
        low, high = (low / 1.1, high * 1.1) if wide else (low / 2, high * 2)
    else:
        low, high = min(low, 0.0), high * 1.05 or 1.0
    return Scale(low, high, start, end, axis.is_log)


def _few(points: Sequence[tuple[float, float]]) -> Sequence[float]:
    """Return the x values that were measured if they make readable ticks."""
    found = sorted({at for at, _ in points})
    return found if len(found) <= MOST_OWN_TICKS else ()


def _grid(
    horizontal: Scale, vertical: Scale, x: Axis, y: Axis, own: Sequence[float]
) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value in vertical.ticks():
        at = vertical.px(value)
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{right}"/>')
        parts.append(text_at(LEFT - 6, at + 4, short(value), "end"))
    for value in own or horizontal.ticks():
        at = horizontal.px(value)
        parts.append(f'<path class="grid" d="M{at:.1f} {TOP}V{bottom}"/>')
        parts.append(text_at(at, bottom + 16, short(value), "middle"))
    parts.append(text_at((LEFT + right) / 2, HEIGHT - 8, x.label, "middle"))
    middle = (TOP + bottom) / 2
    turn = f' transform="rotate(-90 14 {middle:.0f})"'
    parts.append(text_at(14, middle, y.label, "middle", turn))
    return "".join(parts)


def text_at(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    """Return a ``<text>``; `anchor` is ``start``, ``middle`` or ``end``."""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}'
    return f"<text {place}>{escape(text)}</text>"


def _line(index: int, line: Series, x: Scale, y: Scale, markers: bool) -> str:
    places = [(x.px(at), y.px(value)) for at, value in line.points]
    path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
    colour = index % COLOURS
    dash = DASHES[index // COLOURS % len(DASHES)]
    parts = [f'<path class="line c{colour}" stroke-dasharray="{dash}" d="{path}"/>']
    marked = list(zip(places, line.points, strict=True))
    if not markers:
        marked = marked[len(marked) // 2 :][:1]
    for place, (at, value) in marked:
        words = escape(f"{line.name}: {short(at)}, {short(value)}")
        parts.append(f"{marker(index, *place)}<title>{words}</title></path>")
    return "".join(parts)


def marker(index: int, x: float, y: float) -> str:
    """Return an open ``<path>`` of the series' shape; the caller closes it."""
    shapes = (
        "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0",
        "m-4 -4h8v8h-8z",
        "m0 -5l5 9h-10z",
        "m0 -5l5 5l-5 5l-5 -5z",
        "m0 5l5 -9h-10z",
        "m-5 -1.5h3.5v-3.5h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5z",
    )
    shape = shapes[index % len(shapes)]
    return f'<path class="mark c{index % COLOURS}" d="M{x:.1f} {y:.1f}{shape}">'


def _legend(series: Sequence[Series]) -> str:
    items = []
    for index, line in enumerate(series):
        if line.points:
            key = f'<svg viewBox="0 0 16 12" aria-hidden="true">{marker(index, 8, 6)}'
            items.append(f"<li>{key}</path></svg>{escape(line.name)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


def short(value: float) -> str:
    """Return a tick label: few digits, thousands as k and M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
