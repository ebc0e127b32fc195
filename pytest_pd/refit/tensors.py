"""Model shape to tensor kinds, named as Megatron-Core names and splits them."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_pd.refit.shape import Grid, Sharding, TensorKind
from pytest_pd.spec.refit import Layout, MlaSpec, ModelShape, RefitScenario


def _kind(
    name: str,
    group: str,
    shape: tuple[int, int],
    sharding: Sharding,
    layers: tuple[int, int],
    *,
    dim: int = 0,
    blocks: int = 1,
    experts: int = 0,
) -> TensorKind:
    rows, cols = shape
    return TensorKind(
        name, group, rows, cols, sharding, dim, blocks, *layers, experts=experts
    )


def _mla(m: ModelShape, a: MlaSpec) -> Iterable[TensorKind]:
    every = (0, m.layers)
    at = "layers.{layer}.self_attention."
    q_rows = m.heads * (a.qk_nope_dim + a.qk_rope_dim)
    kv_rows = m.heads * (a.qk_nope_dim + a.v_dim)
    kv_down = a.kv_lora_rank + a.qk_rope_dim
    down, up = "linear_{}_down_proj.weight", "linear_{}_up_proj.weight"
    q_down = (a.q_lora_rank, m.hidden)
    yield _kind(at + down.format("q"), "attn_q_a", q_down, "replicated", every)
    q_up = (q_rows, a.q_lora_rank)
    yield _kind(at + up.format("q"), "attn_q_b", q_up, "tp", every)
    kv_shape = (kv_down, m.hidden)
    yield _kind(at + down.format("kv"), "attn_kv_a", kv_shape, "replicated", every)
    kv_up = (kv_rows, a.kv_lora_rank)
    yield _kind(at + up.format("kv"), "attn_kv_b", kv_up, "tp", every)
    out = (m.hidden, m.heads * a.v_dim)
    yield _kind(at + "linear_proj.weight", "attn_o", out, "tp", every, dim=1)
    for name, size in (("q", a.q_lora_rank), ("kv", a.kv_lora_rank)):
        norm = at + name + "_layernorm.weight"
        yield _kind(norm, "norms", (size, 1), "replicated", every)


def _gqa(m: ModelShape) -> Iterable[TensorKind]:
    a = m.attention
    assert not isinstance(a, MlaSpec)
    every = (0, m.layers)
    at = "layers.{layer}.self_attention."
    # Query groups are packed whole, [q..., k, v] per group, so a plain split of
    # the rows keeps each group together.
    rows = (m.heads + 2 * a.kv_heads) * a.head_dim
    yield _kind(at + "linear_qkv.weight", "attn_qkv", (rows, m.hidden), "tp", every)
    out = (m.hidden, m.heads * a.head_dim)
    yield _kind(at + "linear_proj.weight", "attn_o", out, "tp", every, dim=1)
    for name in ("q", "k") if a.qk_norm else ():
        norm = at + name + "_layernorm.weight"
        yield _kind(norm, "norms", (a.head_dim, 1), "replicated", every)


def _mlp(
    prefix: str,
    group: str,
    hidden: int,
    inter: int,
    layers: tuple[int, int],
    *,
    sharding: Sharding = "tp",
    experts: int = 0,
) -> Iterable[TensorKind]:
    suffix = "weight{expert}" if experts else "weight"
    fc1 = f"{prefix}.linear_fc1.{suffix}"
    fc2 = f"{prefix}.linear_fc2.{suffix}"
    gated = (2 * inter, hidden)
    yield _kind(fc1, group, gated, sharding, layers, blocks=2, experts=experts)
    yield _kind(fc2, group, (hidden, inter), sharding, layers, dim=1, experts=experts)


def _moe(m: ModelShape) -> Iterable[TensorKind]:
    layers = (m.dense_layers, m.layers)
    at = "layers.{layer}.mlp."
    router = (m.experts, m.hidden)
    yield _kind(at + "router.weight", "router", router, "replicated", layers)
    if m.router_bias:
        bias = at + "router.expert_bias"
        yield _kind(bias, "router", (m.experts, 1), "replicated", layers)
    if m.shared_experts:
        inter = m.shared_experts * m.moe_inter
        yield from _mlp(at + "shared_experts", "shared_expert", m.hidden, inter, layers)
    yield from _mlp(
        at + "experts",
        "routed_experts",
        m.hidden,
        m.moe_inter,
        layers,
        sharding="etp",
        experts=m.experts,
    )


def tensor_kinds(model: ModelShape) -> tuple[TensorKind, ...]:
    """Return every kind of weight of `model`; embedding first, head last.

    The embedding belongs to layer 0 and the head to the last layer, which puts
    them on the first and the last pipeline stage.
    """
    first, last, every = (0, 1), (model.layers - 1, model.layers), (0, model.layers)
    table = (model.vocab, model.hidden)
    vector = (model.hidden, 1)
    kinds = [_kind("embedding.word_embeddings.weight", "embedding", table, "tp", first)]
    if isinstance(model.attention, MlaSpec):
        kinds += _mla(model, model.attention)
    else:
        kinds += _gqa(model)
    for name in ("input_layernorm", "pre_mlp_layernorm"):
        norm = f"layers.{{layer}}.{name}.weight"
        kinds.append(_kind(norm, "norms", vector, "replicated", every))
    if model.dense_layers:
        dense = (0, model.dense_layers)
        prefix = "layers.{layer}.mlp"
        kinds += _mlp(prefix, "dense_mlp", model.hidden, model.dense_inter, dense)
    if model.dense_layers < model.layers:
        kinds += _moe(model)
    kinds.append(_kind("final_layernorm.weight", "norms", vector, "replicated", last))
    if not model.tied_embeddings:
        kinds.append(_kind("output_layer.weight", "lm_head", table, "tp", last))
    return tuple(kinds)


def parameters(kinds: Iterable[TensorKind]) -> dict[str, int]:
    """Return the number of parameters by group, in order of first appearance."""
    out: dict[str, int] = {}
    for kind in kinds:
        out[kind.group] = out.get(kind.group, 0) + kind.elements * kind.count
    return out


def grid(layout: Layout, model: ModelShape, *, offset: int = 0) -> Grid:
    """Return the rank grid of one side."""
    return Grid(
        tp=layout.tp,
        ep=layout.ep,
        etp=layout.expert_tp,
        pp=layout.pp,
        ranks=layout.ranks,
        offset=offset,
        layers=model.layers,
    )


def grids(scenario: RefitScenario, model: ModelShape) -> tuple[Grid, Grid]:
    """Return source and target grid in global ranks of the launch."""
    return (
        grid(scenario.source, model),
        grid(scenario.target, model, offset=scenario.target_offset),
    )
