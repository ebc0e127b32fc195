"""``report.html``: one page that opens from disk and needs nothing else.

Reads the files of the runs it shows; writes nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from pytest_pd.report.collect import topology_charts
from pytest_pd.report.draw import draw, with_table
from pytest_pd.report.html import Html, details, link, page, table
from pytest_pd.report.picture import draw_topology
from pytest_pd.report.plots import all_plots, per_device
from pytest_pd.report.points import Point, points_of
from pytest_pd.report.read import Entry, RunRecord, TopologyRecord
from pytest_pd.report.scores import HEAD as SCORES
from pytest_pd.report.scores import score_rows
from pytest_pd.report.summary import bad_outcomes
from pytest_pd.report.words import digits, duration, headline, offered

HEAD = (
    *("load", "TTFT p50", "p90", "p99", "ITL p50", "p90", "p99", "TPOT p50"),
    *("E2E p50", "p90", "p99", "tok/s", "per user", "per GPU", "per worker", "holds"),
)
INSTRUMENT = (
    *("load", "TTFT error p99", "ITL error p99", "E2E error p99", "send lag p99"),
    *("shared reads", "client CPU", "host load / cores", "why it does not hold"),
)
LATENCY_CELLS = (
    *(("ttft", name) for name in ("p50", "p90", "p99")),
    *(("itl", name) for name in ("p50", "p90", "p99")),
    ("tpot", "p50"),
    *(("e2e", name) for name in ("p50", "p90", "p99")),
)


def make_page(runs: Sequence[RunRecord], out: Path, *, title: str = "") -> str:
    """Return the page.

    Args:
        runs: Shown one after the other, with plots that hold all of them.
        out: Folder where the page will lie; links to logs are relative to it.
        title: Heading; the run ids when empty.
    """
    points = points_of(runs)
    name = title or "Run " + ", ".join(run.run_id for run in runs)
    rehearsed = any(run.is_rehearsal for run in runs)
    body = [f"<h1>{escape(name)}</h1>"]
    body += [_verdict(run) for run in runs]
    body.append(_plots(points, several_runs=len(runs) > 1))
    body += [_topology(run, t, points, out) for run in runs for t in run.topologies]
    mark = "rehearsal" if rehearsed else ""
    return page(name, "".join(body), body_class=mark, skip="figures")


def _verdict(run: RunRecord) -> str:
    word = run.word.replace(" ", "-")
    parts = []
    if run.is_rehearsal:
        parts.append(
            '<p class="banner">REHEARSAL: reference engines on one machine. No figure '
            "here says anything about the hardware that was planned.</p>"
        )
    line = escape(f"{run.run_id}: {headline(run)}")
    parts.append(f'<p class="verdict {word}">{line}</p>')
    if bad := bad_outcomes(run):
        rows = [
            (Html(f'<b class="{o.verdict}">{o.verdict}</b>'), o.nodeid, o.reason)
            for o in bad
        ]
        names = ("verdict", "test", "reason")
        parts.append(table("Why it is not green", names, rows, wraps=True))
    parts += [f'<p class="invalid">Damaged: {escape(d)}.</p>' for d in run.damaged]
    parts.append(_gate(run))
    told = [
        (name, ", ".join(f"{n} {word}" for word, n in sorted(counts.items())))
        for name, counts in sorted(run.told().items())
    ]
    head = ("topology", "tests")
    parts.append(table(f"Tests of run {run.run_id}", head, told))
    return "".join(parts)


def _gate(run: RunRecord) -> str:
    """Show the judgement of ``--pd-gate``: in the open when it let nothing pass."""
    *figures, last = run.gate_lines or ("",)
    if not last:
        return ""
    rows = [tuple(line.split(": ", 1)) for line in figures if ": " in line]
    if not rows:
        return f"<p>{escape(last)}</p>"
    body = table(last, ("outcome", "figure"), rows, wraps=True)
    return details(last, body) if run.gate == "passed" else body


def _plots(points: Sequence[Point], *, several_runs: bool) -> str:
    drawn = [draw(chart) for chart in all_plots(points, several_runs=several_runs)]
    head = '<h2 id="figures">Figures</h2>'
    if not drawn:
        return head + "<p>No load was measured that holds.</p>"
    rows = [_point_row(point, several_runs) for point in points if point.any.load]
    caption = "The values of the plots; what does not hold is in no plot"
    return (
        f'{head}<div class="plots">{"".join(drawn)}</div>'
        f"{table(caption, HEAD, rows, numbers_from=1)}"
    )


def _point_row(point: Point, several_runs: bool) -> list[object]:
    words = [point.run_id] if several_runs else []
    words += [point.topology, point.workload, offered(point.any)]
    per_gpu = per_device(point, "GPU")
    return [
        " ".join(words),
        *(duration(point.statistic_s(*where)) for where in LATENCY_CELLS),
        digits(point.tokens_per_s),
        digits(point.tokens_per_s_per_user),
        digits(per_gpu),
        digits(per_device(point, "worker")),
        "yes" if point.is_valid else Html('<b class="invalid">no</b>'),
    ]


def _topology(
    run: RunRecord, topology: TopologyRecord, points: Sequence[Point], out: Path
) -> str:
    own = [p for p in points if (p.run_id, p.topology) == (run.run_id, topology.name)]
    parts = [
        f"<h2>{escape(topology.name)}</h2>",
        draw_topology(topology.plan),
        _services(topology, out),
        _charts(topology, own),
        _scores(topology.entries),
        _other_figures(topology.entries),
        _instrument(own),
        _environment(topology),
        _plan(topology),
    ]
    return f"<section>{''.join(parts)}</section>"


def _charts(topology: TopologyRecord, points: Sequence[Point]) -> str:
    pairs = [with_table(chart) for chart in topology_charts(topology, points)]
    return f'<div class="plots">{"".join(pairs)}</div>' if any(pairs) else ""


def _services(topology: TopologyRecord, out: Path) -> str:
    logs = {path.stem: path for path in topology.logs}
    rows = []
    for service in topology.plan.get("services", ()):
        name = str(service["name"])
        ports = ", ".join(f"{k} {v}" for k, v in (service.get("ports") or {}).items())
        gpus = ", ".join(map(str, service.get("gpu_ids") or ())) or "–"
        log = logs.get(name)
        where = link(os.path.relpath(log, out), log.name) if log else "none"
        rows.append((name, service.get("node", ""), gpus, ports, where))
    head = ("service", "node", "GPUs", "ports", "log")
    return table("Services", head, rows) if rows else ""


def _scores(entries: Sequence[Entry]) -> str:
    rows = score_rows(entries)
    return table("Scores", SCORES, rows) if rows else ""


def _other_figures(entries: Sequence[Entry]) -> str:
    """Show what belongs to no sweep: hand-over, refit, goodput."""
    rows = [
        (
            entry.fullname.removeprefix("pd::"),
            f"{entry.statistics()['p50']:.4g} {entry.unit}"
            f"{' or less' if entry.info.get('is_bound') else ''}",
            len(entry.samples),
            "yes" if entry.is_valid else Html('<b class="invalid">no</b>'),
        )
        for entry in entries
        if not entry.load
    ]
    head = ("entry", "median", "samples", "holds")
    return table("Other measurements", head, rows, numbers_from=1) if rows else ""


def _instrument(points: Sequence[Point]) -> str:
    rows = []
    for point in points:
        found: Mapping[str, Any] = point.any.info.get("instrument") or {}
        truth = found.get("calibration") or {}
        if not found:
            continue
        rows.append(
            [
                f"{point.workload} {offered(point.any)}",
                *(duration(_error(truth, m)) for m in ("ttft", "itl", "e2e")),
                duration(found.get("send_lag_p99_s")),
                f"{100 * float(found.get('coalesced_share', 0)):.0f} %",
                f"{100 * float(found.get('cpu_share', 0)):.0f} %",
                f"{found.get('load_average', 0):.1f} / {found.get('cores', '?')}",
                "; ".join(point.any.info.get("reasons") or ()) or "–",
            ]
        )
    caption = "Instrument: its error against a server of known truth at the same load"
    return table(caption, INSTRUMENT, rows, numbers_from=1) if rows else ""


def _error(truth: Mapping[str, Any], metric: str) -> float | None:
    return (truth.get(metric) or {}).get("p99_s")


def _environment(topology: TopologyRecord) -> str:
    environment = {k: v for k, v in topology.environment.items() if k != "variables"}
    variables = topology.environment.get("variables") or {}
    first = topology.entries[0].info if topology.entries else {}
    commit = {"commit": first["git_sha"]} if first.get("git_sha") else {}
    rows = [(k, _plain(v)) for k, v in {**commit, **environment}.items()]
    rows += [(f"${name}", value) for name, value in variables.items()]
    if not rows:
        return ""
    return details("Environment", table("Environment", ("name", "value"), rows))


def _plan(topology: TopologyRecord) -> str:
    if not topology.plan:
        return "<p>No plan was kept: bring-up did not get that far.</p>"
    text = escape(json.dumps(topology.plan, indent=1))
    return details(f"Plan {topology.identity}", f'<pre tabindex="0">{text}</pre>')


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return str(value)
