"""``compare.html``: what got better, what worse, and what else differs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pytest_pd.measure.ratio import Change
from pytest_pd.report.chart import Axis, Bar, Bars
from pytest_pd.report.compare import Compared, Comparison
from pytest_pd.report.draw import draw
from pytest_pd.report.html import Html, details, page, table
from pytest_pd.report.words import digits, duration

HEAD = ("entry", "change", "ratio", "interval", "old", "new", "runs", "statistic")
CLASSES = {Change.WORSE: "failed", Change.BETTER: "passed"}
ORDER = (Change.WORSE, Change.CANNOT_TELL, Change.BETTER, Change.SAME)
MOST_BARS = 30
NOTE = (
    "A ratio above 1 is worse. The interval knows the samples of each run and the "
    "scatter from run to run."
)


def compare_page(
    pairs: Sequence[tuple[str, str, Comparison]],
    *,
    forced: bool,
    title: str = "",
    notes: Sequence[str] = (),
    has_plans: bool = True,
) -> str:
    """Return the page.

    Args:
        pairs: (old, new, what was found), in order.
        forced: Kinds, topologies or loads may differ.
        notes: What was left out of a side.
        has_plans: The sides are runs; of a server nobody knows the plan.
    """
    name = title or "; ".join(f"{new} against {old}" for old, new, _ in pairs)
    parts = [f"<h1>{escape(name)}</h1>", f'<p class="dim">{NOTE}</p>']
    if forced:
        parts.append(
            '<p class="banner">Compared by force: kinds, hardware, topologies or loads '
            "may differ.</p>"
        )
    parts += [f"<p>{escape(note)}</p>" for note in notes if note]
    parts += [_pair(old, new, found, has_plans) for old, new, found in pairs]
    return page(name, "".join(parts))


def _pair(old: str, new: str, found: Comparison, has_plans: bool) -> str:
    worst = min((row.change for row in found.rows), key=ORDER.index)
    word = CLASSES.get(worst, "no-verdict" if worst is Change.CANNOT_TELL else "passed")
    parts = [
        f"<h2>{escape(f'{new} against {old}')}</h2>",
        f'<p class="verdict {word}">{escape(counted(found))}</p>',
        draw(ratios(found.rows)),
        table("Every metric", HEAD, map(_cells, _sorted(found.rows)), numbers_from=2),
    ]
    if found.differences:
        head = ("what", "old", "new")
        parts.append(table("What else differs", head, found.differences, wraps=True))
    elif has_plans:
        parts.append("<p>Plans and environments do not differ.</p>")
    for side, names in (("old", found.only_old), ("new", found.only_new)):
        if names:
            rows = [(name,) for name in names]
            words = f"{len(names)} entries of the {side} side alone"
            parts.append(details(words, table(words, ("entry",), rows)))
    return f"<section>{''.join(parts)}</section>"


def counted(found: Comparison) -> str:
    """Return how many metrics changed how, in words."""
    words = [row.change for row in found.rows]
    told = [(words.count(word), word.value) for word in ORDER if word in words]
    return ", ".join(f"{number} {word}" for number, word in told)


def _sorted(rows: Sequence[Compared]) -> list[Compared]:
    return sorted(rows, key=lambda row: (ORDER.index(row.change), row.name))


def ratios(rows: Sequence[Compared]) -> Bars:
    """Return the ratios with their intervals, those that matter most first."""
    shown = _sorted(rows)[:MOST_BARS]
    left = f", the first {MOST_BARS} of {len(rows)}" if len(rows) > MOST_BARS else ""
    return Bars(
        "ratios",
        f"Ratio of new to old{left}; right of the mark is worse",
        Axis("ratio", is_log=True),
        tuple(
            Bar(
                label_of(row),
                row.ratio.value,
                row.ratio.low,
                row.ratio.high,
                mark=1.0,
                group=ORDER.index(row.change),
            )
            for row in shown
        ),
        interval="interval",
        mark="no change",
    )


def label_of(row: Compared) -> str:
    """Return a bar's label: what happened first, for phones cut the end."""
    test, _, metric = row.name.rpartition("::")
    place = test.partition("[")[2].removesuffix("]") or test.rpartition("::")[2]
    return f"{row.change.value}: {metric} {row.statistic}, {place}"


def _cells(row: Compared) -> Sequence[object]:
    ratio = row.ratio
    word = CLASSES.get(row.change, "")
    return (
        row.name,
        Html(f'<b class="{word}">{row.change.value}</b>'),
        f"{ratio.value:.3f}",
        f"{ratio.low:.3f} to {ratio.high:.3f}",
        figure(ratio.old, row.unit),
        figure(ratio.new, row.unit),
        f"{ratio.old_runs} / {ratio.new_runs}",
        row.statistic,
    )


def figure(value: float, unit: str) -> str:
    """Return a figure with its unit."""
    return duration(value) if unit == "s" else f"{digits(value)} {unit}"
