"""From two files to a plan: looks engine, router and model up, and plans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pytest_pd.engines import ENGINES
from pytest_pd.errors import SpecError
from pytest_pd.files import read_object
from pytest_pd.plan.build import make_plan
from pytest_pd.plan.model import UNKNOWN_SITE, DeploymentPlan, KvShape, SiteFacts
from pytest_pd.plan.seam import Engine, Router
from pytest_pd.plan.words import flag_value
from pytest_pd.provision.rehearse import is_rehearsal
from pytest_pd.routers import ROUTERS
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.file import read_workload
from pytest_pd.spec.locate import HERE, Roots, find_one, find_path
from pytest_pd.spec.topology import TopologySpec
from pytest_pd.spec.workload import WorkloadSpec

GPUS_PER_NODE = {"gb200": 4, "gb300": 4}
"""GPUs of one node by hardware, where it is not 8."""

ASSUMED = "any_"
Backend = Literal["local", "ssh", "slurm", "kubernetes"]
ASSUMED_NODES = 4096

ITEMSIZE = {
    "float32": 4,
    "float": 4,
    "float16": 2,
    "half": 2,
    "bfloat16": 2,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
}
"""Bytes of one KV value by its type's name, where no quantization is asked for."""

COMPUTE_TYPES = ("float32", "float16", "bfloat16")
KV_TYPE_FLAGS = ("--kv-cache-dtype", "--dtype")


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
    the package) and its ``config.json`` read for the shape of the KV. A cluster
    of other hardware is replaced by one that fits: such a plan is marked
    ``assumed`` and can be read, not started.

    Raises:
        SpecError: something is unknown or does not fit.
    """
    place = fitting(topology, cluster)
    named = resolve_model(topology, place, roots)
    kv = read_kv_shape(Path(named.model.path), kv_dtype(named))
    engine, router = engine_of(named), router_of(named)
    plan = make_plan(
        named,
        place,
        engine,
        router,
        site,
        kv=kv,
        workloads=workloads_of(topology, roots),
        rehearsal=is_rehearsal(topology) or cluster.stand_in,
    )
    if not is_assumed(place):
        return plan
    note = (
        f"Planned for {place.hardware} nodes of {place.gpus_per_node} GPUs: cluster "
        f"{cluster.name!r} is {cluster.hardware}."
    )
    return replace(plan, assumed=True, notes=(note, *plan.notes))


def fitting(topology: TopologySpec, cluster: ClusterSpec) -> ClusterSpec:
    """Return the cluster as the topology meets it.

    A topology for CPUs leaves GPUs alone. For one whose hardware the cluster has
    not, nodes of that hardware are assumed, as many as it takes.
    """
    kinds = topology.hardware_kinds
    if cluster.hardware in kinds:
        return cluster
    if "cpu" in kinds:
        return cluster.model_copy(update={"gpus_per_node": 0, "hardware": "cpu"})
    gpus = topology.placement.gpus_per_node or GPUS_PER_NODE.get(kinds[0], 8)
    ref = topology.model.ref
    return ClusterSpec(
        name=f"{ASSUMED}{kinds[0]}",
        backend=assumed_backend(topology, cluster),
        hardware=kinds[0],
        nodes=ASSUMED_NODES,
        gpus_per_node=gpus,
        kubernetes=cluster.kubernetes,
        models={**({ref: ref} if ref else {}), **cluster.models},
        images=cluster.images,
    )


def assumed_backend(topology: TopologySpec, cluster: ClusterSpec) -> Backend:
    """Return where a topology is planned for that no cluster at hand fits."""
    if topology.kubernetes:
        return "kubernetes"
    return "local" if cluster.backend == "ssh" else cluster.backend


def is_assumed(cluster: ClusterSpec) -> bool:
    """Return whether `fitting` made the cluster up."""
    return cluster.name.startswith(ASSUMED)


def workloads_of(
    topology: TopologySpec, roots: Roots = HERE
) -> tuple[WorkloadSpec, ...]:
    """Return the workloads that the topology names or writes out.

    Raises:
        SpecError: there is no workload of a name, or its file is wrong.
    """
    return tuple(
        word
        if isinstance(word, WorkloadSpec)
        else read_workload(find_one("workloads", [word], roots).path)
        for word in topology.workloads
    )


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
    """Return the type of KV that the topology asks for, None for the model's own."""
    pool = topology.decode or topology.aggregated
    if pool is None:
        return None
    words = (*topology.engine.args, *pool.args)
    asked = [pool.kv_cache_dtype, *(flag_value(words, flag) for flag in KV_TYPE_FLAGS)]
    if topology.model.precision in COMPUTE_TYPES:
        asked.append(topology.model.precision)
    return next((name for name in asked if name and name != "auto"), None)


def read_kv_shape(model: Path, dtype: str | None) -> KvShape | None:
    """Return the KV shape from a model folder's ``config.json``, None without one."""
    config = read_object(model / "config.json")
    apart = read_object(model / "hf_quant_config.json").get("quantization")
    return kv_shape({"quantization_config": apart, **config}, dtype)


def kv_shape(config: Mapping[str, Any], dtype: str | None = None) -> KvShape | None:
    """Return the KV shape of a Hugging Face configuration.

    Source:
        transformers' ``PretrainedConfig``: ``num_key_value_heads`` defaults to
        ``num_attention_heads``, ``head_dim`` to hidden size over heads. With
        ``kv_lora_rank`` (multi-head latent attention) a token has one latent
        vector of rank + rope dimensions in each layer, and no K and V.

    Returns:
        None as well where layers differ, or where the checkpoint may quantize the KV
        or is in float32, which vLLM computes in half of that: which layers and types
        are handed over is then the engine's choice.
    """
    text = config.get("text_config", config)
    heads, layers = text.get("num_attention_heads"), text.get("num_hidden_layers")
    kind = dtype or text.get("dtype") or text.get("torch_dtype")
    if not heads or not layers or kind not in ITEMSIZE:
        return None
    if kind == "float32" and not dtype:
        return None
    if set(text.get("layer_types") or ()) - {"full_attention"}:
        return None
    if ITEMSIZE[kind] > 1 and quantizes_kv(config):
        return None
    if rank := text.get("kv_lora_rank"):
        latent = rank + text.get("qk_rope_head_dim", 0)
        return KvShape(layers, 1, latent // 2, ITEMSIZE[kind])
    head_dim = text.get("head_dim") or text.get("hidden_size", 0) // heads
    kv_heads = text.get("num_key_value_heads") or heads
    return KvShape(layers, kv_heads, head_dim, ITEMSIZE[kind]) if head_dim else None


def quantizes_kv(config: Mapping[str, Any]) -> bool:
    """Tell whether a checkpoint brings a quantization of the KV cache.

    Source:
        compressed-tensors' ``kv_cache_scheme``, ModelOpt's ``kv_cache_quant_algo``.
    """
    found = config.get("quantization_config")
    keys = found.items() if isinstance(found, Mapping) else ()
    return any(key.startswith("kv_cache") and value for key, value in keys)
