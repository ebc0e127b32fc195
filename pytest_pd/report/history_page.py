"""``history.html``: what changed and when, with a plot for each figure. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pytest_pd.report.draw import draw
from pytest_pd.report.history import MOST_PLOTS, Finding, Track, plots_of
from pytest_pd.report.html import Html, page, table
from pytest_pd.report.night import Night

HEAD = ("change", "since", "run", "entry", "statistic", "where", "what else changed")


def history_page(
    nights: Sequence[Night],
    tracks: Sequence[Track],
    found: Sequence[Finding],
    *,
    title: str = "",
) -> str:
    """Return the page."""
    name = title or f"History of {len(nights)} runs"
    slower = sum(finding.change.ratio > 1 for finding in found)
    word = "failed" if slower else "passed"
    line = f"{len(found)} changes of level, {slower} of them slower"
    parts = [
        f"<h1>{escape(name)}</h1>",
        f'<p class="verdict {word}">{line} ({nights[0].at} to {nights[-1].at})</p>',
    ]
    if found:
        parts.append(table("What changed", HEAD, map(_cells, found), wraps=True))
    plots = plots_of(tracks)
    note = f": those that changed, then others, {MOST_PLOTS} at most" if plots else ""
    parts.append(f'<h2 id="figures">Figures over the nights{note}</h2>')
    parts.append(f'<div class="plots">{"".join(map(draw, plots))}</div>')
    rows = [
        (n + 1, night.at, night.run_id, night.word, _told(night))
        for n, night in enumerate(nights)
    ]
    head = ("night", "start", "run", "verdict", "made with")
    parts.append(table("Nights", head, rows))
    return page(name, "".join(parts), skip="figures")


def _cells(found: Finding) -> Sequence[object]:
    percent = 100 * (found.change.ratio - 1)
    word = "failed" if percent > 0 else "passed"
    direction = "slower" if percent > 0 else "faster"
    return (
        Html(f'<b class="{word}">{direction} {percent:+.1f} %</b>'),
        found.night.at,
        found.night.run_id,
        found.track.name,
        found.track.statistic,
        found.track.place,
        "; ".join(f"{n} {a or 'none'} to {b or 'none'}" for n, a, b in found.versions)
        or "nothing known",
    )


def _told(night: Night) -> str:
    return ", ".join(f"{k} {v[:12]}" for k, v in night.versions.items() if v)
