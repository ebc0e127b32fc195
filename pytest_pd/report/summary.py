"""``summary.md``: what a chat or a GitHub step summary shows of a run. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pytest_pd.report.outcome import BAD, TestOutcome, rank
from pytest_pd.report.points import Point, points_of
from pytest_pd.report.read import RunRecord
from pytest_pd.report.scores import HEAD as SCORES
from pytest_pd.report.scores import score_rows
from pytest_pd.report.words import digits, duration, headline, offered

MOST_LISTED = 20
HEAD = (
    "load",
    "TTFT p50",
    "TTFT p99",
    "ITL p50",
    "ITL p99",
    "E2E p50",
    "tok/s",
    "holds",
)


def summary_markdown(runs: Sequence[RunRecord]) -> str:
    """Return the whole text for one or more runs."""
    return "\n".join(line for run in runs for line in _run(run)) + "\n"


def bad_outcomes(run: RunRecord) -> list[TestOutcome]:
    """Return the tests that are not green, worst first."""
    found = [outcome for outcome in run.outcomes if outcome.verdict in BAD]
    return sorted(found, key=lambda outcome: rank(outcome.verdict))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a Markdown table; bars inside cells are escaped."""
    lines = [list(head), ["---"] * len(head), *map(list, rows)]
    return ["| " + " | ".join(map(_cell, cells)) + " |" for cells in lines]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _run(run: RunRecord) -> list[str]:
    lines = [f"## Run {run.run_id}: {headline(run)}", ""]
    lines += _verdicts(run)
    lines += _reasons(run)
    lines += [line for told in run.damaged for line in (f"Damaged: {_cell(told)}.", "")]
    lines += _gate(run)
    points = points_of([run])
    for topology in run.topologies:
        own = [p for p in points if p.topology == topology.name and p.any.load]
        scores = score_rows(topology.entries)
        if own or scores:
            lines += [f"### {topology.name}", ""]
        if own:
            lines += [*table(HEAD, map(point_cells, own)), ""]
        if scores:
            lines += [*table(SCORES, scores), ""]
    return lines


def _verdicts(run: RunRecord) -> list[str]:
    rows = [
        (name, ", ".join(f"{n} {word}" for word, n in sorted(counts.items())))
        for name, counts in sorted(run.told().items())
    ]
    return [*table(("topology", "tests"), rows), ""] if rows else []


def _reasons(run: RunRecord) -> list[str]:
    bad = bad_outcomes(run)
    if not bad:
        return []
    lines = [
        f"- **{outcome.verdict}** `{outcome.nodeid}`: {_cell(outcome.reason)}"
        for outcome in bad[:MOST_LISTED]
    ]
    if len(bad) > MOST_LISTED:
        lines.append(f"- and {len(bad) - MOST_LISTED} more")
    return [*lines, ""]


def _gate(run: RunRecord) -> list[str]:
    """Return what the gate says of figures that it did not pass, and its summary."""
    *figures, last = run.gate_lines or ("",)
    if not last:
        return []
    bad = [line for line in figures if not line.startswith("passed:")]
    lines = [f"- {_cell(line)}" for line in bad[:MOST_LISTED]]
    if len(bad) > MOST_LISTED:
        lines.append(f"- and {len(bad) - MOST_LISTED} more")
    return [f"**{_cell(last)}**", "", *lines, *([""] if lines else [])]


def point_cells(point: Point) -> tuple[str, ...]:
    """Return the cells of a point under `HEAD`."""
    times = (("ttft", "p50"), ("ttft", "p99"), ("itl", "p50"), ("itl", "p99"))
    return (
        f"{point.workload} {offered(point.any)}",
        *(duration(point.statistic_s(metric, name)) for metric, name in times),
        duration(point.statistic_s("e2e", "p50")),
        digits(point.tokens_per_s),
        "yes" if point.is_valid else "NO",
    )
