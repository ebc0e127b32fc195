"""What the metrics pages of a run say: who served, and how fast KV moved.

Pages are the ones kept when the topology was ready and when it ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_pd.probe.metrics import Page, increase, parse_page
from pytest_pd.report.chart import Axis, Bar, Bars
from pytest_pd.report.read import TopologyRecord

REQUESTS = (
    "vllm:request_success_total",
    'dynamo_component_requests_total{dynamo_endpoint="generate"}',
)
ROUTED = {
    "prefill": (
        "pd_proxy_prefill_requests_total",
        "vllm_router_pd_prefill_requests_total",
    ),
    "decode": (
        "pd_proxy_decode_requests_total",
        "vllm_router_pd_decode_requests_total",
    ),
}
MOVED_BYTES = "vllm:nixl_bytes_transferred_sum"
MOVED_SECONDS = "vllm:nixl_xfer_time_seconds_sum"
ROLES = ("prefill", "decode", "aggregated")


@dataclass(frozen=True, slots=True)
class Pages:
    """Metrics pages of one service, when it was ready and at the end."""

    before: Page
    after: Page

    def grown(self, query: str) -> float | None:
        """Return how much a counter grew; None when there is no such counter."""
        return increase(self.before, self.after, query)


def pages_of(folder: Path) -> dict[str, Pages]:
    """Return service name to its pages, for all that left both."""
    found = {}
    for path in sorted((folder / "metrics").glob("*-end.txt")):
        name = path.name.removesuffix("-end.txt")
        first = path.with_name(f"{name}-ready.txt")
        if first.is_file():
            found[name] = Pages(_page(first), _page(path))
    return found


def _page(path: Path) -> Page:
    return parse_page(path.read_text(encoding="utf-8", errors="replace"))


def routing(topology: TopologyRecord, pages: Mapping[str, Pages]) -> Bars:
    """Return requests per worker over the whole run, warm-up and probes included.

    By the router's own counters where it has them per worker, else by the workers'.
    The mark is the even share inside each role.
    """
    bars: list[Bar] = []
    for role in ROLES:
        names = _workers(topology, role)
        counts = _by_router(role, topology, pages) or _by_worker(names, pages)
        share = sum(counts.values()) / len(counts) if counts else None
        group = ROLES.index(role)
        bars += [Bar(name, n, mark=share, group=group) for name, n in counts.items()]
    title = "Requests per worker over the run"
    return Bars("routing", title, Axis("requests"), tuple(bars), mark="even share")


def _workers(topology: TopologyRecord, role: str) -> list[str]:
    services = topology.plan.get("services", ())
    return [str(s["name"]) for s in services if s.get("role") == role]


def _by_worker(names: list[str], pages: Mapping[str, Pages]) -> dict[str, float]:
    found = {}
    for name in names:
        grown = (
            [pages[name].grown(query) for query in REQUESTS] if name in pages else []
        )
        told = [value for value in grown if value is not None]
        if told:
            found[name] = told[0]
    return found


def _by_router(
    role: str, topology: TopologyRecord, pages: Mapping[str, Pages]
) -> dict[str, float]:
    router = next((s for s in _workers(topology, "router") if s in pages), None)
    if router is None or role not in ROUTED:
        return {}
    names = {
        str(end["url"]).rstrip("/"): str(end["service"])
        for end in topology.plan.get("endpoints", ())
        if end.get("role") == role
    }
    found = dict.fromkeys(names.values(), 0.0)
    for query in ROUTED[role]:
        before = pages[router].before.label_totals(query, "worker")
        after = pages[router].after.label_totals(query, "worker")
        for worker, total in after.items():
            # ranks of one worker (…@2) count for the worker
            name = names.get(worker.partition("@")[0].rstrip("/"))
            if name is not None:
                found[name] += total - before.get(worker, 0.0)
    return found if sum(found.values()) else {}


def bandwidth(topology: TopologyRecord, pages: Mapping[str, Pages]) -> Bars:
    """Return how fast KV came to each worker, and the floors that TTFT proves."""
    bars = [*_transfers(topology, pages), *_floors(topology)]
    title = "KV transfer: by the workers' counters, and the floor under it by TTFT"
    return Bars("kv_bandwidth", title, Axis("MB/s"), tuple(bars))


def _transfers(topology: TopologyRecord, pages: Mapping[str, Pages]) -> Iterator[Bar]:
    for role in ROLES:
        for name in _workers(topology, role):
            moved = pages[name].grown(MOVED_BYTES) if name in pages else None
            seconds = pages[name].grown(MOVED_SECONDS) if name in pages else None
            if moved and seconds:
                words = f"{name}: {moved / 1e6:.3g} MB, time in transfers"
                yield Bar(words, moved / seconds / 1e6)


def _floors(topology: TopologyRecord) -> Iterator[Bar]:
    for entry in topology.entries:
        floor = entry.info.get("bytes_per_s_at_least")
        if entry.metric == "kv_handover_bound" and entry.is_valid and floor:
            size = float(entry.info.get("bytes", 0)) / 1e6
            words = f"{entry.workload}: {size:.3g} MB, at least (whole TTFT)"
            yield Bar(words, float(floor) / 1e6, group=1)
