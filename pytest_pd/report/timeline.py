"""When each request was in prefill and in decode: from raw records and router log."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pytest_pd.errors import MeasurementError
from pytest_pd.load.record import Phase
from pytest_pd.load.result import LoadResult, RequestTrace
from pytest_pd.report.chart import Span, Timeline
from pytest_pd.report.read import TopologyRecord

MOST_REQUESTS = 64
LINE = re.compile(
    r"^(?P<when>\S+ \S+) INFO pytest_pd\.proxy: request id=pd-(?P<index>\d{1,18}) .*?"
    r"prefill=(?P<prefill>\S+) decode=(?P<decode>\S+) .*?"
    r"prefill_ms=(?P<prefill_ms>\d+(?:\.\d+)?) .*?total_ms=(?P<total_ms>\d+(?:\.\d+)?)",
    re.MULTILINE,
)
CLOCK_SLACK_S = 1.0
"""How far the router's clock may be from ours for a line to be of this run."""
KINDS_KNOWN = ("prefill", "hand-over and first token", "decode")
KINDS_SEEN = ("until the first token: prefill and hand-over", "decode")


@dataclass(frozen=True, slots=True)
class Hop:
    """What the built-in proxy logged of one request."""

    ended_s: float
    prefill: str
    decode: str
    prefill_s: float


@dataclass(frozen=True, slots=True)
class Stay:
    """One request: where it was, and when, in seconds from the first one."""

    index: int
    prefill: str
    decode: str
    sent_s: float
    prefilled_s: float
    first_s: float
    end_s: float


def timeline_of(topology: TopologyRecord) -> Timeline | None:
    """Return the timeline of the closed-loop point with the most streams.

    Only its first `MOST_REQUESTS` measured requests are shown. Where the built-in
    proxy's log tells when prefill ended and which workers served, lanes are workers;
    elsewhere a lane is a phase as the client saw it.
    """
    chosen = choose(topology.folder)
    if chosen is None:
        return None
    path, result = chosen
    traces = [t for t in result.traces(Phase.MEASURED) if t.is_ok and len(t.stamp_ns)]
    traces = sorted(traces, key=lambda t: t.sent_before_ns)[:MOST_REQUESTS]
    if not traces:
        return None
    hops = matched(traces, result, read_hops(_router_log(topology)))
    names = {
        str(end["url"]): str(end["service"])
        for end in topology.plan.get("endpoints", ())
    }
    stays = [
        _stay(t, traces[0].sent_before_ns, hops.get(t.index), names) for t in traces
    ]
    title = (
        f"{path.stem.rpartition('--')[2]}: first {len(traces)} of "
        f"{len(result.rows())} measured requests"
    )
    return lay_out(stays, title, known=bool(hops))


def choose(folder: Path) -> tuple[Path, LoadResult] | None:
    """Return the raw records of the valid closed-loop point with the most streams."""
    best: tuple[int, Path, LoadResult] | None = None
    for path in sorted((folder / "load").glob("*.npz")):
        if path.stem.endswith("-alone"):
            continue
        try:
            result = LoadResult.load(path)
        except MeasurementError:
            continue  # written by another release, or torn by a kill
        streams = result.point.concurrency or 0
        is_closed = str(result.point.arrivals) == "closed"
        if result.is_valid and is_closed and (best is None or streams > best[0]):
            best = streams, path, result
    return best[1:] if best else None


def _router_log(topology: TopologyRecord) -> str:
    path = topology.folder / "logs" / "router.log"
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def read_hops(log: str) -> dict[int, list[Hop]]:
    """Return prompt index to the requests of that index in the proxy's log."""
    found: dict[int, list[Hop]] = {}
    for match in LINE.finditer(log):
        try:
            ended = datetime.strptime(match["when"], "%Y-%m-%d %H:%M:%S,%f")
            ended_s = ended.timestamp()
        except (ValueError, OverflowError):
            continue  # a line that was cut
        hop = Hop(
            ended_s, match["prefill"], match["decode"], float(match["prefill_ms"]) / 1e3
        )
        found.setdefault(int(match["index"]), []).append(hop)
    return found


def matched(
    traces: Sequence[RequestTrace], result: LoadResult, hops: Mapping[int, list[Hop]]
) -> dict[int, Hop]:
    """Return prompt index to its log line; empty unless every request has one."""
    rows = result.requests
    sent = rows["sent_before_ns"]
    zero_s = result.started_at_s - float(sent[sent > 0].min()) / 1e9
    found = {}
    for trace in traces:
        due_s = zero_s + trace.end_ns / 1e9
        near = [
            hop
            for hop in hops.get(trace.index, ())
            if abs(hop.ended_s - due_s) < CLOCK_SLACK_S
        ]
        if not near:
            return {}
        found[trace.index] = min(near, key=lambda hop: abs(hop.ended_s - due_s))
    return found


def _stay(
    trace: RequestTrace, zero_ns: int, hop: Hop | None, names: Mapping[str, str]
) -> Stay:
    sent_s = (trace.sent_before_ns - zero_ns) / 1e9
    first_s = (int(trace.stamp_ns[0]) - zero_ns) / 1e9
    return Stay(
        trace.index,
        prefill=names.get(hop.prefill, hop.prefill) if hop else "prefill",
        decode=names.get(hop.decode, hop.decode) if hop else "decode",
        sent_s=sent_s,
        prefilled_s=min(sent_s + hop.prefill_s, first_s) if hop else first_s,
        first_s=first_s,
        end_s=(trace.end_ns - zero_ns) / 1e9,
    )


def lay_out(stays: Sequence[Stay], title: str, *, known: bool) -> Timeline:
    """Return the timeline with every span in a row of its own lane."""
    lanes = [
        *dict.fromkeys(sorted(stay.prefill for stay in stays)),
        *dict.fromkeys(sorted(stay.decode for stay in stays)),
    ]
    spans: list[Span] = []
    sizes = [1] * len(lanes)
    for lane, name in enumerate(lanes):
        parts = [part for stay in stays for part in _parts(stay, name, known=known)]
        rows = packed([(part[0][1], part[-1][2]) for _, part in parts])
        sizes[lane] = max(rows, default=0) + 1
        for row, (stay, part) in zip(rows, parts, strict=True):
            spans += [
                Span(lane, row, kind, start, end, f"request {stay.index}")
                for kind, start, end in part
            ]
    kinds = KINDS_KNOWN if known else KINDS_SEEN
    return Timeline(
        "timeline", title, tuple(zip(lanes, sizes, strict=True)), kinds, tuple(spans)
    )


Part = tuple[Stay, list[tuple[int, float, float]]]


def _parts(stay: Stay, lane: str, *, known: bool) -> Iterable[Part]:
    """Yield what a request did in one lane: (kind, start, end), in order."""
    if lane == stay.prefill:
        yield stay, [(0, stay.sent_s, stay.prefilled_s)]
    if lane == stay.decode:
        parts = [(2 if known else 1, stay.first_s, stay.end_s)]
        if known:
            parts.insert(0, (1, stay.prefilled_s, stay.first_s))
        yield stay, parts


def packed(stretches: Sequence[tuple[float, float]]) -> list[int]:
    """Return a row for each (start, end), the fewest in which none overlap."""
    rows = [0] * len(stretches)
    busy: list[tuple[float, int]] = []
    free: list[int] = []
    for at in sorted(range(len(stretches)), key=lambda i: stretches[i]):
        start, end = stretches[at]
        while busy and busy[0][0] <= start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        rows[at] = heapq.heappop(free) if free else len(busy)
        heapq.heappush(busy, (end, rows[at]))
    return rows
