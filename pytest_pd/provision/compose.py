"""From two files to a plan: looks engine, router and model up, and plans."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_pd.engines import ENGINES
from pytest_pd.errors import SpecError
from pytest_pd.plan.build import make_plan
from pytest_pd.plan.model import UNKNOWN_SITE, DeploymentPlan, KvShape, SiteFacts
from pytest_pd.plan.seam import Engine, Router
from pytest_pd.routers import ROUTERS
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.locate import HERE, Roots, find_path
from pytest_pd.spec.topology import TopologySpec

ITEMSIZE = {"float32": 4, "float16": 2, "bfloat16": 2, "fp8": 1, "float8_e4m3fn": 1}
"""Bytes of one KV value by its type's name, where no quantization is asked for."""

COMPUTE_TYPES = ("float32", "float16", "bfloat16")


def engine_of(topology: TopologySpec) -> Engine:
    """Return the engine that the topology names.

    Raises:
        SpecError: nobody registered it; names the nearest.
    """
    return ENGINES.get(topology.engine.kind)()


def router_of(topology: TopologySpec) -> Router | None:
    """Return the router that the topology names, or None when it has none."""
    return ROUTERS.get(topology.router.kind)() if topology.router else None


def plan_deployment(
    topology: TopologySpec,
    cluster: ClusterSpec,
    site: SiteFacts = UNKNOWN_SITE,
    *,
    roots: Roots = HERE,
) -> DeploymentPlan:
    """Plan a topology on a cluster.

    The model's path is looked up here (``fixtures/...`` in the project, then in
    the package) and its ``config.json`` read for the shape of the KV.

    Raises:
        SpecError: something is unknown or does not fit.
    """
    named = resolve_model(topology, cluster, roots)
    kv = read_kv_shape(Path(named.model.path), kv_dtype(named))
    engine, router = engine_of(named), router_of(named)
    return make_plan(named, cluster, engine, router, site, kv=kv)


def resolve_model(
    topology: TopologySpec, cluster: ClusterSpec, roots: Roots = HERE
) -> TopologySpec:
    """Return the topology with its model's final path.

    Raises:
        SpecError: ``model.ref`` is not in the cluster's ``models:``, or the path
            lies below ``fixtures/`` and there is no such folder.
    """
    model = topology.model
    path = model.path or cluster.models.get(model.ref or "", "")
    if not path:
        raise SpecError.unknown(
            f"cluster {cluster.name!r}: model", str(model.ref), cluster.models
        )
    found = find_path(path, roots)
    if found is None and path.startswith("fixtures/"):
        raise SpecError(
            f"{topology.name}: model path {path!r} does not exist.",
            hint="correct model.path, or build the model",
        )
    final = str(found) if found else path
    return topology.model_copy(
        update={"model": model.model_copy(update={"path": final})}
    )


def kv_dtype(topology: TopologySpec) -> str | None:
    """Return the KV type that is asked for, None for the one of the model's file.

    KV has the type that the model computes in, unless decode names another.
    """
    pool = topology.decode or topology.aggregated
    if pool and pool.kv_cache_dtype:
        return pool.kv_cache_dtype
    precision = topology.model.precision
    return precision if precision in COMPUTE_TYPES else None


def read_kv_shape(model: Path, dtype: str | None) -> KvShape | None:
    """Return the KV shape from a model folder's ``config.json``, None without one."""
    try:
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return kv_shape(config, dtype) if isinstance(config, dict) else None


def kv_shape(config: Mapping[str, Any], dtype: str | None = None) -> KvShape | None:
    """Return the KV shape of a Hugging Face configuration.

    Source:
        transformers' ``PretrainedConfig``: ``num_key_value_heads`` defaults to
        ``num_attention_heads``, ``head_dim`` to hidden size over heads.
    """
    text = config.get("text_config", config)
    heads = text.get("num_attention_heads")
    layers = text.get("num_hidden_layers")
    kind = dtype or text.get("dtype") or text.get("torch_dtype") or "bfloat16"
    if not heads or not layers or kind not in ITEMSIZE:
        return None
    head_dim = text.get("head_dim") or text.get("hidden_size", 0) // heads
    kv_heads = text.get("num_key_value_heads") or heads
    return KvShape(layers, kv_heads, head_dim, ITEMSIZE[kind]) if head_dim else None
