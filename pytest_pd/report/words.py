"""Figures for people: seconds, rates and shares in a few digits. Pure."""

from __future__ import annotations

from pytest_pd.report.outcome import BAD
from pytest_pd.report.read import Entry, RunRecord

TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def duration(seconds: float | None) -> str:
    """Return a time with three digits and the unit that fits, ``12.3 ms``."""
    if seconds is None:
        return "–"
    for size, unit in TIMES:
        if abs(seconds) >= size * 0.9995:
            return f"{digits(seconds / size)} {unit}"
    return "0 s" if seconds == 0 else f"{seconds / 1e-9:.3g} ns"


def digits(value: float | None) -> str:
    """Return three digits, never in scientific notation; more before the point."""
    if value is None:
        return "–"
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 0.9995:
        return f"{value:.2f}"
    return f"{value:.3g}"


def offered(entry: Entry) -> str:
    """Return the load of a point in words: ``4 streams``, ``20 req/s poisson``."""
    if entry.concurrency is not None:
        return f"{entry.concurrency:g} stream{'s' if entry.concurrency != 1 else ''}"
    rate = entry.load.get("rate_per_s")
    return f"{rate:g} req/s {entry.load.get('arrivals')}" if rate else "–"


def tally(run: RunRecord) -> str:
    """Return the counts in words: ``2 failed, 30 passed``."""
    return ", ".join(f"{n} {word}" for word, n in run.counts().items()) or "no tests"


def headline(run: RunRecord) -> str:
    """Return the verdict of a run with what makes it so, in one line."""
    mark = "REHEARSAL: " if run.is_rehearsal else ""
    return f"{mark}{run.word} – {tally(run)}{_remark(run)}"


def _remark(run: RunRecord) -> str:
    if not run.is_finished:
        return " (the run was ended before it could conclude)"
    if run.gate not in ("", "passed"):
        return f" (gate: {run.gate})"
    if run.word == "failed" and not any(run.counts().get(word) for word in BAD):
        return f" (pytest ended with exit status {run.verdict['exit_status']})"
    silent = ", ".join(map(str, run.verdict.get("without_verdict", ())))
    return f" (no verdict: {silent})" if silent else ""
