"""What the proxy counts: the names are documented in docs/reference/proxy.md."""

# ruff: noqa: RUF009 - the calls in the class body return dataclass fields
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields

from pytest_pd.proxy.pool import Pool
from pytest_pd.proxy.prometheus import (
    Counter,
    Gauge,
    Histogram,
    Labels,
    Metric,
    page,
)
from pytest_pd.proxy.worker import Health, Role

ROUTES = ("/v1/completions", "/v1/chat/completions")


def _counter(name: str, help_text: str, *labels: str) -> Counter:
    made: Counter = field(
        default_factory=lambda: Counter(f"pd_proxy_{name}", help_text, labels)
    )
    return made


def _histogram(name: str, help_text: str) -> Histogram:
    made: Histogram = field(
        default_factory=lambda: Histogram(f"pd_proxy_{name}", help_text, ("route",))
    )
    return made


def _by_role(name: str, help_text: str, *labels: str) -> dict[Role, Counter]:
    made: dict[Role, Counter] = field(
        default_factory=lambda: {
            role: Counter(f"pd_proxy_{role}_{name}", help_text.format(role), labels)
            for role in Role
        }
    )
    return made


@dataclass(slots=True)
class Metrics:
    """Every metric of one proxy, in the order of the page."""

    requests: Counter = _counter(
        "requests_total", "Generation requests that arrived.", "route"
    )
    responses: Counter = _counter(
        "responses_total",
        "Answers to generation requests by HTTP status; 499: the client left.",
        "route",
        "status",
    )
    outcomes: Counter = _counter(
        "outcomes_total", "How generation requests ended.", "route", "outcome"
    )
    stage_requests: dict[Role, Counter] = _by_role(
        "requests_total", "Requests sent to a {} worker, retries included.", "worker"
    )
    stage_errors: dict[Role, Counter] = _by_role(
        "errors_total", "Requests that failed on a {} worker.", "worker", "reason"
    )
    retries: Counter = _counter(
        "retries_total",
        "Attempts repeated after a failure before the first byte.",
        "role",
        "reason",
    )
    stream_errors: Counter = _counter(
        "stream_errors_total",
        "Streams that broke after the first byte, told to the client as an event.",
        "worker",
        "reason",
    )
    rate_limited: Counter = _counter(
        "rate_limited_total", "Requests refused by the rate limit."
    )
    queue_refused: Counter = _counter(
        "queue_refused_total",
        "Requests refused because the queue was full or the wait too long.",
        "reason",
    )
    disconnects: Counter = _counter(
        "client_disconnects_total",
        "Clients that left before their answer was whole, by stage.",
        "stage",
    )
    single_stage: Counter = _counter(
        "single_stage_requests_total",
        "Requests served by a decode worker alone.",
        "reason",
    )
    handovers: Counter = _counter(
        "handovers_total",
        "Prefills finished, by what they gave for the decode worker.",
        "worker",
        "handover",
    )
    decisions: Counter = _counter(
        "policy_decisions_total", "Choices of a worker.", "policy", "role", "worker"
    )
    faults: Counter = _counter(
        "faults_total", "Requests that a fault was put into.", "kind"
    )
    queue_s: Histogram = _histogram("queue_seconds", "Wait for a place.")
    prefill_s: Histogram = _histogram(
        "prefill_seconds", "Prefill stage, retries included."
    )
    ttft_s: Histogram = _histogram(
        "first_byte_seconds",
        "Arrival of the request to the first byte from the decode worker.",
    )
    request_s: Histogram = _histogram("request_seconds", "Arrival to the last byte.")
    gauges: list[Gauge] = field(default_factory=list)

    def watch(
        self,
        pools: Iterable[Pool],
        *,
        active: Callable[[], int],
        queued: Callable[[], int],
    ) -> None:
        """Show the state of `pools` and of the queue; preset the workers' counters."""
        workers = [worker for pool in pools for worker in pool.workers]
        for worker in workers:
            self.stage_requests[worker.role].preset(worker.name)
        for route in ROUTES:
            self.requests.preset(route)

        def health() -> Iterable[tuple[Labels, float]]:
            return [((w.role, w.name), w.health is Health.UP) for w in workers]

        def busy() -> Iterable[tuple[Labels, float]]:
            return [((w.role, w.name), w.active) for w in workers]

        self.gauges = [
            Gauge("pd_proxy_worker_health", "1: up.", ("role", "worker"), health),
            Gauge(
                "pd_proxy_worker_active_requests",
                "Requests in flight on a worker.",
                ("role", "worker"),
                busy,
            ),
            Gauge(
                "pd_proxy_active_requests",
                "Requests that hold a place.",
                (),
                lambda: [((), active())],
            ),
            Gauge(
                "pd_proxy_queue_depth",
                "Requests that wait for a place.",
                (),
                lambda: [((), queued())],
            ),
        ]

    def all(self) -> Sequence[Metric]:
        """Return every metric in the order of the page."""
        found: list[Metric] = []
        for each in (getattr(self, member.name) for member in fields(self)):
            if isinstance(each, dict):
                found += each.values()
            else:
                found += each if isinstance(each, list) else [each]
        return found

    def page(self) -> str:
        """Return the text of GET /metrics."""
        return page(self.all())
