"""Where engines keep what costs minutes to make again: weights, compiled kernels."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.topology import TopologySpec

BY_IMAGE = {
    "VLLM_CACHE_ROOT": "vllm",
    "TRITON_CACHE_DIR": "triton",
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
}
"""Kernels of one image are wrong for another, or silently made anew."""
SHARED = {"HF_HOME": "huggingface"}


def cache_env(
    cluster: ClusterSpec, topology: TopologySpec, image: str | None
) -> Mapping[str, str]:
    """Return the variables that put an engine's caches below ``cache_dir``.

    Weights are shared by all images; everything compiled lies in a folder per image,
    or per engine and version where there is none. Empty without ``cache_dir``.
    """
    if not cluster.cache_dir:
        return {}
    engine = topology.engine
    made_by = image or f"{engine.kind}-{engine.version or 'installed'}"
    own = f"{cluster.cache_dir}/{re.sub(r'[^A-Za-z0-9._-]+', '-', made_by)}"
    return {name: f"{cluster.cache_dir}/{leaf}" for name, leaf in SHARED.items()} | {
        name: f"{own}/{leaf}" for name, leaf in BY_IMAGE.items()
    }
