"""The engine's book-keeping: what happened to a request, in vLLM's metrics."""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress

from pytest_pd.reference.connector import Transfer
from pytest_pd.reference.metrics import EngineMetrics
from pytest_pd.reference.request import FinishReason, Request

_KEPT_TRANSFERS = 10_000


class Books:
    """Writes what happens to the metrics of one engine."""

    def __init__(self, metrics: EngineMetrics, *, cache_source: str | None) -> None:
        self.metrics = metrics
        self._cache_source = cache_source
        self._transfers: deque[Transfer] = deque(maxlen=_KEPT_TRANSFERS)
        metrics.set("engine_sleep_state", 1.0, "awake")

    def state(self, *, running: int, waiting: int, loading: int, usage: float) -> None:
        """Set the gauges."""
        gauges = self.metrics
        gauges.set("num_requests_running", running)
        gauges.set("num_requests_waiting", waiting + loading)
        gauges.set("num_requests_waiting_by_reason", waiting, "capacity")
        gauges.set("num_requests_waiting_by_reason", loading, "deferred")
        gauges.set("num_requests_kv_fetch_by_stage", loading, "in_progress")
        gauges.set("kv_cache_usage_perc", usage)

    def admitted(self, request: Request, *, looked_up: bool) -> None:
        """Count look-ups in the own cache and at the connector."""
        add = self.metrics.add
        external = request.reported_external
        if looked_up:
            add("prefix_cache_queries", len(request.tokens))
            add("prefix_cache_hits", request.cached)
        add("prompt_tokens_cached_by_source", request.cached, "device")
        if self._cache_source is not None:
            missed = len(request.tokens) - request.cached
            add("external_prefix_cache_queries", missed)
            add("external_prefix_cache_hits", external)
            add("prompt_tokens_cached_by_source", external, self._cache_source)

    def transferred(self, transfer: Transfer) -> None:
        """Count one load; only pulls have metrics of their own."""
        if self._cache_source != "p2p":
            return
        self._transfers.append(transfer)
        observe = self.metrics.observe
        observe("nixl_xfer_time_seconds", transfer.time_s)
        observe("nixl_post_time_seconds", transfer.post_s)
        observe("nixl_bytes_transferred", transfer.size_bytes)
        observe("nixl_num_descriptors", transfer.descriptors)

    def take_transfers(self) -> list[Transfer]:
        """Return the pulls since the last call; the newest where they were many."""
        taken = []
        with suppress(IndexError):
            while True:
                taken.append(self._transfers.popleft())
        return taken

    def transfer_failed(self) -> None:
        """Count a load that did not come."""
        self.metrics.add("nixl_num_failed_transfers")

    def kept_expired(self) -> None:
        """Count kept blocks that nobody fetched in time."""
        self.metrics.add("nixl_num_kv_expired_reqs")

    def fetched_late(self) -> None:
        """Count a "done" for blocks that were given up before."""
        self.metrics.add("nixl_num_notifications_after_expiry")

    def preempted(self) -> None:
        """Count a request that lost its blocks to others."""
        self.metrics.add("num_preemptions")

    def stepped(self, tokens: int) -> None:
        """Count one forward pass over `tokens` new tokens."""
        self.metrics.observe("iteration_tokens_total", tokens)

    def prefilled(self, request: Request) -> None:
        """Count the prompt by where its KV came from."""
        add = self.metrics.add
        external = request.reported_external
        computed = max(request.prompt_tokens - request.cached - external, 0)
        add("prompt_tokens", request.prompt_tokens)
        add("prompt_tokens_cached", request.cached + external)
        add("prompt_tokens_by_source", computed, "local_compute")
        add("prompt_tokens_by_source", request.cached, "local_cache_hit")
        add("prompt_tokens_by_source", external, "external_kv_transfer")

    def generated(self, request: Request) -> None:
        """Count one token of the answer and the time since the one before."""
        now = time.perf_counter()
        if request.generated == 1:
            request.first_token_s = now
            self.metrics.observe("time_to_first_token_seconds", now - request.arrived_s)
        else:
            gap = now - request.last_token_s
            self.metrics.observe("inter_token_latency_seconds", gap)
        request.last_token_s = now
        self.metrics.add("generation_tokens")

    def finished(self, request: Request, reason: FinishReason) -> None:
        """Count the end of a request and its times."""
        self.metrics.add("request_success", 1, reason)
        if request.first_token_s:
            self._sizes(request)
            self._times(request)

    def _sizes(self, request: Request) -> None:
        observe = self.metrics.observe
        observe("request_prompt_tokens", request.prompt_tokens)
        observe("request_generation_tokens", request.generated)
        observe("request_max_num_generation_tokens", request.generated)
        observe("request_params_n", 1)
        observe("request_params_max_tokens", request.sampling.max_tokens)
        observe("request_num_preemptions", request.preemptions)
        computed = max(request.prompt_tokens - request.reported_cached, 0)
        observe("request_prefill_kv_computed_tokens", computed)

    def _times(self, request: Request) -> None:
        observe = self.metrics.observe
        decode_s = request.last_token_s - request.first_token_s
        running_s = request.last_token_s - request.scheduled_s
        per_token_s = (
            decode_s / (request.generated - 1) if request.generated > 1 else 0.0
        )
        observe("request_time_per_output_token_seconds", per_token_s)
        observe("e2e_request_latency_seconds", request.last_token_s - request.arrived_s)
        observe("request_queue_time_seconds", request.scheduled_s - request.arrived_s)
        observe("request_inference_time_seconds", running_s)
        observe("request_prefill_time_seconds", running_s - decode_s)
        observe("request_decode_time_seconds", decode_s)
