"""Small parts of a page: escaped text, tables, sections. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from pytest_pd.report.style import CSS


class Html(str):
    """Text that is markup already and must not be escaped again."""

    __slots__ = ()


def cell(value: object) -> str:
    """Return markup as it is, everything else escaped."""
    return value if isinstance(value, Html) else escape(str(value))


def link(target: str, words: str) -> Html:
    """Return a link; `target` is a relative path."""
    return Html(f'<a href="{escape(target)}">{escape(words)}</a>')


def table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    numbers_from: int = 99,
    name: str = "",
    wraps: bool = False,
) -> str:
    """Return a table that scrolls inside its own box on a narrow screen.

    Args:
        numbers_from: First column that holds figures, aligned to the right.
        name: For screen readers, where the caption alone does not tell.
        wraps: Break long words, so that text fits on a phone.
    """

    def column(index: int) -> str:
        return ' class="n"' if index >= numbers_from else ""

    top = "".join(
        f'<th scope="col"{column(i)}>{escape(word)}</th>' for i, word in enumerate(head)
    )
    body = []
    for row in rows:
        first, *others = row
        cells = [f'<th scope="row">{cell(first)}</th>']
        cells += [f"<td{column(i)}>{cell(v)}</td>" for i, v in enumerate(others, 1)]
        body.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="wide{" wraps" if wraps else ""}" tabindex="0" role="region" '
        f'aria-label="{escape(name or caption)}">'
        f"<table><caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def details(summary: str, body: str) -> str:
    """Return a part that opens on a click or Enter."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def page(title: str, body: str, *, body_class: str = "", skip: str = "") -> str:
    """Return a whole page that needs no network.

    Args:
        skip: Id of the part that the first link of the page jumps to.
    """
    jump = f'<a class="skip" href="#{skip}">Skip to the figures</a>' if skip else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>"
        f"<body{f' class={body_class}' if body_class else ''}>{jump}"
        f"<main>{body}</main></body></html>\n"
    )
