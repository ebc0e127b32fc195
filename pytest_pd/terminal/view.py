"""How a load run looks while it runs, and after."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pytest_pd.load.engine import Counters
from pytest_pd.load.result import LoadResult
from pytest_pd.measure.measurement import Measurement
from pytest_pd.secret import redact, secrets_in

SHOWN = ("p50", "p90", "p99", "mean", "max")


class LiveView:
    """A progress bar with rate, requests in flight, failures and time left."""

    def __init__(self, label: str, console: Console | None = None) -> None:
        self._label = label
        self._console = console or Console(stderr=True)

    @contextmanager
    def running(
        self, total: int, limit_s: float | None = None
    ) -> Iterator[Callable[[Counters], None]]:
        """Yield the function to call with the counters.

        Args:
            total: Requests that end the run.
            limit_s: Seconds that end it instead.
        """
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}{task.fields[unit]}"),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
        )
        started = 0.0
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(
                self._label,
                total=total if limit_s is None else limit_s,
                unit="" if limit_s is None else " s",
                state="warming up",
            )

            def tick(counters: Counters) -> None:
                nonlocal started
                started = started or time.monotonic()  # the warm-up is over
                passed_s = max(time.monotonic() - started, 1e-9)
                rate = counters.done / passed_s
                state = (
                    f"{counters.in_flight} in flight, {counters.failed} failed, "
                    f"{rate:.3g}/s"
                )
                completed = counters.done if limit_s is None else passed_s
                progress.update(task, completed=completed, state=state)

            yield tick


def plain_point(
    label: str, result: LoadResult, figures: dict[str, Any]
) -> dict[str, Any]:
    """Return one point as plain JSON: percentiles and provenance, no raw samples.

    What a server says of a failure is masked: some repeat what they were sent.
    """
    hidden = secrets_in(os.environ)
    errors = list(result.errors.items())[:20]
    entry: dict[str, Any] = {
        "point": label,
        "url": result.url,
        "started_at_s": result.started_at_s,
        "outcomes": result.counts(),
        "valid": result.is_valid,
        "reasons": list(result.reasons),
        "errors": {str(k): redact(text, hidden) for k, text in errors},
        "metrics": {
            m.metric: {"unit": m.unit, **_own(m)}
            for m in figures.get("measurements", ())
        },
    }
    for measurement in figures.get("measurements", ())[:1]:
        entry["run"] = {k: v for k, v in measurement.extra.items() if k in _COMMON}
    if found := figures.get("goodput"):
        entry["goodput"] = {
            "share": found.share,
            "requests_per_s": found.requests_per_s,
            "good": found.good,
            "sent": found.sent,
            "misses": found.misses,
        }
    return entry


_COMMON = (
    "load",
    "endpoint",
    "model",
    "tokenizer",
    "requests",
    "success_share",
    "input_tokens_mean",
    "output_tokens_mean",
    "tokens_per_event",
    "instrument",
)


def _own(measurement: Measurement) -> dict[str, Any]:
    skipped = {*_COMMON, "outcomes", "token_sources", "valid", "reasons"}
    return {k: v for k, v in measurement.extra.items() if k not in skipped}


def as_table(label: str, result: LoadResult, entry: dict[str, Any]) -> str:
    """Return the point as a table of milliseconds, with throughput below it."""
    table = Table(title=f"{label}: {entry['outcomes']}", title_justify="left")
    table.add_column("ms")
    for name in SHOWN:
        table.add_column(name, justify="right")
    lines = []
    for name, metric in entry["metrics"].items():
        found = metric.get("percentiles_s")
        if found:
            table.add_row(name, *(f"{found[q] * 1e3:.3f}" for q in SHOWN))
        for key, value in metric.items():
            if "_per_s" in key:
                lines.append(f"{key} {value:.4g}")
    if "goodput" in entry:
        good = entry["goodput"]
        lines.append(
            f"goodput {good['requests_per_s']:.4g} requests/s ({good['share']:.1%})"
        )
    sink = io.StringIO()
    console = Console(file=sink, width=100)
    if table.row_count:
        console.print(table)
    else:
        console.print(f"{label}: {entry['outcomes']}")
    return sink.getvalue().rstrip() + "\n" + "; ".join(lines)
