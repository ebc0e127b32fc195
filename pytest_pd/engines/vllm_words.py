"""What vLLM says: metric names by version, stages of a start, known failures."""

from __future__ import annotations

from pytest_pd.engines.version import Version
from pytest_pd.plan.seam import EvidenceNames

BY_SOURCE = "vllm:prompt_tokens_by_source_total"
EXTERNAL = "vllm:external_prefix_cache"
BY_SOURCE_SINCE: Version = (0, 16)
"""Older releases do not say where a prompt token's KV came from."""
CONNECTORS_SINCE: Version = (0, 12)
"""Older releases do not, or not all, count what connectors and NIXL do (vLLM's pull
requests 26245 and 26811)."""

STAGES = (
    (r"non-default args:", "configuration"),
    (r"Initializing a V1 LLM engine", "engine process"),
    (r"Starting to load model", "weights"),
    (r"Completed \| (\d+)/(\d+)", "weights shards"),
    (r"Loading weights took", "weights loaded"),
    (r"Directly load (?:AOT compilation|the)\b", "compiled before (warm cache)"),
    (r"Compiling a graph|Cache the graph", "compile (cold cache)"),
    (r"Capturing (?:CUDA|\d+ encoder CUDA) graph", "graphs"),
    (r"KV cache size:", "KV cache"),
    (r"Initializing NIXL wrapper", "KV transfer agent"),
    (r"Registering KV_Caches", "KV registration"),
    (r"Starting vLLM server|Starting vLLM API server", "API server"),
    (r"Application startup complete", "ready"),
)
"""(pattern, stage) in the order in which a start passes them."""


def evidence(version: Version, *, nixl: bool, shared_storage: bool) -> EvidenceNames:
    """Return the names that this release uses, measured on 0.32.0."""
    by_source = version >= BY_SOURCE_SINCE
    connectors = version >= CONNECTORS_SINCE
    nixl = nixl and connectors
    external = 'external_kv_transfer"}'
    return EvidenceNames(
        prompt_tokens="vllm:prompt_tokens_total",
        computed_tokens=f'{BY_SOURCE}{{source="local_compute"}}' if by_source else "",
        generated_tokens="vllm:generation_tokens_total",
        external_tokens=f'{BY_SOURCE}{{source="{external}' if by_source else "",
        external_queries=f"{EXTERNAL}_queries_total" if connectors else "",
        external_hits=f"{EXTERNAL}_hits_total" if connectors else "",
        transferred_bytes="vllm:nixl_bytes_transferred_sum" if nixl else "",
        transfer_seconds="vllm:nixl_xfer_time_seconds_sum" if nixl else "",
        transfers="vllm:nixl_bytes_transferred_count" if nixl else "",
        transfer_failures="vllm:nixl_num_failed_transfers_total" if nixl else "",
        local_hits="vllm:prefix_cache_hits_total",
        requests="vllm:request_success_total",
        log_hit="External Cache Hit!" if shared_storage else "",
        log_inject="Inject KV cache of" if shared_storage else "",
    )
