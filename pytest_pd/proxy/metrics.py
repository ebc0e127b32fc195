"""What the proxy counts: the names are documented in docs/reference/proxy.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

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


class Metrics:
    """Every metric of one proxy; each counter has one name and one place of use."""

    def __init__(self) -> None:
        self.requests = Counter(
            "pd_proxy_requests_total", "Generation requests that arrived.", ("route",)
        )
        self.responses = Counter(
            "pd_proxy_responses_total",
            "Answers to generation requests by HTTP status; 499: the client left.",
            ("route", "status"),
        )
        self.outcomes = Counter(
            "pd_proxy_outcomes_total",
            "How generation requests ended.",
            ("route", "outcome"),
        )
        self.stage_requests = {
            role: Counter(
                f"pd_proxy_{role}_requests_total",
                f"Requests sent to a {role} worker, retries included.",
                ("worker",),
            )
            for role in Role
        }
        self.stage_errors = {
            role: Counter(
                f"pd_proxy_{role}_errors_total",
                f"Requests that failed on a {role} worker.",
                ("worker", "reason"),
            )
            for role in Role
        }
        self.retries = Counter(
            "pd_proxy_retries_total",
            "Attempts repeated after a failure before the first byte.",
            ("role", "reason"),
        )
        self.stream_errors = Counter(
            "pd_proxy_stream_errors_total",
            "Streams that broke after the first byte, told to the client as an event.",
            ("worker", "reason"),
        )
        self.rate_limited = Counter(
            "pd_proxy_rate_limited_total", "Requests refused by the rate limit."
        )
        self.queue_refused = Counter(
            "pd_proxy_queue_refused_total",
            "Requests refused because the queue was full or the wait too long.",
            ("reason",),
        )
        self.disconnects = Counter(
            "pd_proxy_client_disconnects_total",
            "Clients that left before their answer was whole, by stage.",
            ("stage",),
        )
        self.single_stage = Counter(
            "pd_proxy_single_stage_requests_total",
            "Requests served by a decode worker alone.",
            ("reason",),
        )
        self.handovers = Counter(
            "pd_proxy_handovers_total",
            "Prefills finished, by what they gave for the decode worker.",
            ("worker", "handover"),
        )
        self.decisions = Counter(
            "pd_proxy_policy_decisions_total",
            "Choices of a worker.",
            ("policy", "role", "worker"),
        )
        self.faults = Counter(
            "pd_proxy_faults_total", "Requests that a fault was put into.", ("kind",)
        )
        self.queue_s = Histogram(
            "pd_proxy_queue_seconds", "Wait for a place.", ("route",)
        )
        self.prefill_s = Histogram(
            "pd_proxy_prefill_seconds", "Prefill stage, retries included.", ("route",)
        )
        self.ttft_s = Histogram(
            "pd_proxy_first_byte_seconds",
            "Arrival of the request to the first byte from the decode worker.",
            ("route",),
        )
        self.request_s = Histogram(
            "pd_proxy_request_seconds", "Arrival to the last byte.", ("route",)
        )
        self._gauges: list[Gauge] = []

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

        self._gauges = [
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
        return [
            self.requests,
            self.responses,
            self.outcomes,
            *self.stage_requests.values(),
            *self.stage_errors.values(),
            self.retries,
            self.stream_errors,
            self.rate_limited,
            self.queue_refused,
            self.disconnects,
            self.single_stage,
            self.handovers,
            self.decisions,
            self.faults,
            self.queue_s,
            self.prefill_s,
            self.ttft_s,
            self.request_s,
            *self._gauges,
        ]

    def page(self) -> str:
        """Return the text of GET /metrics."""
        return page(self.all())
