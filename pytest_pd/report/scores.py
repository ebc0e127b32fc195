"""Scores of evals in words: one row for each task. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_pd.report.read import Entry

HEAD = ("task", "samples", "score", "aggregated", "gates")
Row = tuple[str, str, str, str, str]


def task_of(entry: Entry) -> str:
    """Return the task that was scored, or the test where it names none."""
    return str(entry.info.get("task") or entry.test)


def other_score(entry: Entry) -> float | None:
    """Return the score of the same questions asked of aggregated serving."""
    found = entry.info.get("scores")
    other = found.get("aggregated") if isinstance(found, dict) else None
    return float(other) if isinstance(other, int | float) and _is_share(other) else None


def score_rows(entries: Iterable[Entry]) -> list[Row]:
    """Return the cells under `HEAD` of every entry that holds a score."""
    return [_row(entry) for entry in entries if has_score(entry)]


def has_score(entry: Entry) -> bool:
    """Tell whether an entry holds a share of right answers."""
    score = entry.info.get("score")
    if not isinstance(score, int | float) or isinstance(score, bool):
        return False
    return _is_share(score)


def _is_share(number: float) -> bool:
    return 0 <= number <= 1


def _row(entry: Entry) -> Row:
    other = other_score(entry)
    gates = entry.info.get("gates")
    told = [f"{k} {v}" for k, v in gates.items()] if isinstance(gates, dict) else []
    return (
        task_of(entry),
        str(entry.info.get("samples") or entry.info.get("n") or len(entry.samples)),
        f"{entry.info['score']:.3f}",
        "–" if other is None else f"{other:.3f}",
        ", ".join(told) or "–",
    )
