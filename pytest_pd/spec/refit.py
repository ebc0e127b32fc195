"""What a refit scenario file can say: model shape, layouts, mode, method, claims.

A refit copies the weights of a running trainer into a running inference engine
whose parallel layout is another one. Ranks are counted in Megatron's order:
tensor parallel fastest, then data (dense) or expert parallel, pipeline slowest.
"""

from __future__ import annotations

from math import lcm
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pytest_pd.spec.base import Count, Model, Positive

Dtype = Literal["fp32", "bf16", "fp16", "fp8", "nvfp4"]

DTYPE_BYTES: dict[str, float] = {
    "fp32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    # 4-bit values in blocks of 16 that share one 8-bit scale: 0.5 + 1/16.
    "nvfp4": 0.5625,
}
"""Bytes per parameter on the wire."""


MOST_SIZE = 2**22
"""Bytes of a tensor of two such sizes and an expert's axis stay exact in 64 bits."""
MOST_RANKS = 4_096
"""A plan keeps the bytes from every rank to every other."""
Size = Annotated[int, Field(ge=1, le=MOST_SIZE)]
Layers = Annotated[int, Field(ge=1, le=10_000)]
Experts = Annotated[int, Field(ge=0, le=2**16)]


class MlaSpec(Model):
    """Multi-head latent attention, as in DeepSeek V3 and Kimi K2."""

    kind: Literal["mla"]
    q_lora_rank: Size
    kv_lora_rank: Size
    qk_nope_dim: Size
    qk_rope_dim: Size
    v_dim: Size


class GqaSpec(Model):
    """Grouped-query attention; `kv_heads` equal to the heads is plain MHA."""

    kind: Literal["gqa"]
    kv_heads: Size
    head_dim: Size
    qk_norm: bool = False


class ModelShape(Model):
    """The dimensions of a transformer that decide where its bytes lie.

    Attributes:
        dense_layers: Leading layers with a dense MLP; all of them if there are
            no experts.
        moe_inter: Intermediate size of one routed expert.
        shared_experts: Shared experts of size `moe_inter`, fused into one MLP.
        router_bias: Per-expert bias of auxiliary-loss-free load balancing.
    """

    name: str
    hidden: Size
    layers: Layers
    dense_layers: Count = 0
    dense_inter: Annotated[int, Field(ge=0, le=MOST_SIZE)] = 0
    experts: Experts = 0
    moe_inter: Annotated[int, Field(ge=0, le=MOST_SIZE)] = 0
    shared_experts: Experts = 0
    router_topk: Count = 0
    router_bias: bool = False
    heads: Size
    attention: Annotated[MlaSpec | GqaSpec, Field(discriminator="kind")]
    vocab: Size
    tied_embeddings: bool = False

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.dense_layers > self.layers:
            raise ValueError(
                f"dense_layers {self.dense_layers} > layers {self.layers}."
            )
        if self.dense_layers < self.layers and not (self.experts and self.moe_inter):
            raise ValueError(
                f"{self.layers - self.dense_layers} of {self.layers} layers are MoE "
                "layers, so 'experts' and 'moe_inter' are needed."
            )
        if self.dense_layers and not self.dense_inter:
            raise ValueError(f"{self.dense_layers} dense layers need 'dense_inter'.")
        return self

    def refusals(self, layout: Layout) -> list[str]:
        """Return one sentence with the arithmetic for each axis that does not fit."""
        wanted = [
            ("heads", self.heads, "tp", layout.tp),
            ("vocab", self.vocab, "tp", layout.tp),
        ]
        if isinstance(self.attention, GqaSpec):
            wanted.append(("kv_heads", self.attention.kv_heads, "tp", layout.tp))
        if self.dense_layers:
            wanted.append(("dense_inter", self.dense_inter, "tp", layout.tp))
        if self.experts:
            wanted.append(("experts", self.experts, "ep", layout.ep))
            wanted.append(("moe_inter", self.moe_inter, "etp", layout.expert_tp))
        if self.shared_experts:
            shared = self.shared_experts * self.moe_inter
            wanted.append(("shared_experts x moe_inter", shared, "tp", layout.tp))
        out = [
            f"{name} {size} is not a multiple of {axis} {parts}: "
            f"{size} % {parts} = {size % parts}."
            for name, size, axis, parts in wanted
            if size % parts
        ]
        if layout.ep > 1 and not self.experts:
            out.append(f"ep {layout.ep} needs experts; the model has none.")
        if layout.pp > self.layers:
            out.append(f"pp {layout.pp} > layers {self.layers}.")
        return out


class Layout(Model):
    """How one side of a refit is split.

    Attributes:
        etp: Tensor parallelism inside an expert; Megatron's default is `tp`.
        dp: Replicas of the dense weights; default: the fewest with which both
            ``tp * dp`` and ``etp * ep`` fill the same ranks.
    """

    tp: Positive = 1
    ep: Positive = 1
    etp: Positive | None = None
    pp: Positive = 1
    dp: Positive | None = None

    @model_validator(mode="after")
    def _fills_its_ranks(self) -> Self:
        if self.ranks % self.launch_unit:
            raise ValueError(
                f"tp {self.tp} x dp {self.dp} x pp {self.pp} = {self.ranks} ranks is "
                f"not a multiple of etp {self.expert_tp} x ep {self.ep} x pp {self.pp} "
                f"= {self.launch_unit}."
            )
        return self

    @property
    def expert_tp(self) -> int:
        return self.etp or self.tp

    @property
    def dense_dp(self) -> int:
        return self.dp or lcm(self.tp, self.expert_tp * self.ep) // self.tp

    @property
    def ranks(self) -> int:
        return self.tp * self.dense_dp * self.pp

    @property
    def launch_unit(self) -> int:
        """Megatron refuses a launch whose ranks are not a multiple of this."""
        return self.expert_tp * self.ep * self.pp

    def divided(self, tp_by: int, ep_by: int) -> Layout:
        """Return the layout with its degrees divided, none below 1."""
        return Layout(
            tp=max(1, self.tp // tp_by),
            ep=max(1, self.ep // ep_by),
            etp=self.etp and max(1, self.etp // tp_by),
            pp=self.pp,
        )

    def filling(self, ranks: int) -> Layout:
        """Return the layout with as many dense replicas as fill `ranks`."""
        if self.ranks == ranks:
            return self
        return Layout(**{**dict(self), "dp": ranks // (self.tp * self.pp)})

    def __str__(self) -> str:
        parts = [f"TP{self.tp}", f"EP{self.ep}"]
        parts += [f"ETP{self.etp}"] if self.etp and self.etp != self.tp else []
        parts += [f"PP{self.pp}"] if self.pp > 1 else []
        parts += [f"DP{self.dp}"] if self.dp else []
        return "".join(parts)


class RefitScenario(Model):
    """One refit: from a layout to a layout, on the same GPUs or on others.

    Attributes:
        launch_ranks: Processes of the launch; default: what the layouts need,
            rounded up to what Megatron accepts.
        claimed_ms: Somebody's estimate, low and high, judged by ``refit plan``.
        back: It is the way back of the scenario with this id.
    """

    id: Positive
    purpose: str = ""
    source: Layout
    target: Layout
    mode: Literal["collocated", "non-collocated"]
    method: Literal["nccl", "nvshmem", "gloo", "nixl"] = "nccl"
    warmup: Count = 2
    iterations: Positive = 10
    dtype: Dtype = "bf16"
    gpus_per_node: Positive = 8
    launch_ranks: Positive | None = None
    claimed_ms: tuple[float, float] | None = None
    back: bool = False

    @model_validator(mode="after")
    def _ranks_fit(self) -> Self:
        if self.world_ranks > MOST_RANKS:
            raise ValueError(
                f"scenario {self.id} has {self.world_ranks} ranks; {MOST_RANKS} is "
                "the most that is planned."
            )
        if self.collocated and self.source.ranks != self.target.ranks:
            raise ValueError(
                f"scenario {self.id} is collocated: source {self.source} has "
                f"{self.source.ranks} ranks, target {self.target} "
                f"{self.target.ranks}; set 'dp' to make them equal."
            )
        if self.world_ranks % self.source.launch_unit:
            raise ValueError(
                f"scenario {self.id}: launch_ranks {self.world_ranks} is not a "
                f"multiple of the source's etp x ep x pp = {self.source.launch_unit}."
            )
        if self.world_ranks < self.used_ranks:
            raise ValueError(
                f"scenario {self.id}: launch_ranks {self.world_ranks} < "
                f"{self.used_ranks} ranks in use."
            )
        return self

    @property
    def label(self) -> str:
        """The id, with ``-back`` on the way back."""
        return f"{self.id}-back" if self.back else str(self.id)

    @property
    def collocated(self) -> bool:
        return self.mode == "collocated"

    @property
    def target_offset(self) -> int:
        """Global rank of the target's rank 0."""
        return 0 if self.collocated else self.source.ranks

    @property
    def used_ranks(self) -> int:
        return self.target_offset + self.target.ranks

    @property
    def world_ranks(self) -> int:
        unit = self.source.launch_unit
        return self.launch_ranks or -(-self.used_ranks // unit) * unit

    @property
    def idle_ranks(self) -> range:
        """Ranks that a Megatron launch needs and this refit does not."""
        return range(self.used_ranks, self.world_ranks)

    def nodes(self, ranks: int) -> int:
        """Return the nodes that `ranks` processes fill, one GPU each."""
        return -(-ranks // self.gpus_per_node)

    def reversed(self) -> RefitScenario:
        """Return the way back, target to source, without the claim."""
        change = {
            "source": self.target,
            "target": self.source,
            "launch_ranks": None,
            "claimed_ms": None,
            "purpose": f"way back of {self.id}",
            "back": not self.back,
        }
        return RefitScenario(**{**dict(self), **change})

    def scaled(self, *, tp_by: int, ep_by: int) -> RefitScenario:
        """Return the CPU twin: degrees divided, gloo, no claim."""
        source = self.source.divided(tp_by, ep_by)
        target = self.target.divided(tp_by, ep_by)
        if self.collocated:
            world = lcm(source.ranks, target.ranks)
            source, target = source.filling(world), target.filling(world)
        change = {
            "source": source,
            "target": target,
            "method": "gloo",
            "launch_ranks": None,
            "claimed_ms": None,
        }
        return RefitScenario(**{**dict(self), **change})


class TwinSpec(Model):
    """A small stand-in for the model, and by how much the degrees are divided."""

    model: ModelShape
    tp_by: Positive = 1
    ep_by: Positive = 1


class RefitSpec(Model):
    """A file of `fixtures/refit`: a model and the refits to do with it."""

    name: str
    model: ModelShape
    scenarios: Annotated[tuple[RefitScenario, ...], Field(min_length=1)]
    twins: dict[str, TwinSpec] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _model_fits_layouts(self) -> Self:
        for scenario in self.scenarios:
            for layout in (scenario.source, scenario.target):
                for refusal in self.model.refusals(layout):
                    raise ValueError(f"scenario {scenario.id}, {layout}: {refusal}")
        if len({s.id for s in self.scenarios}) < len(self.scenarios):
            raise ValueError("two scenarios have the same id.")
        for name, twin in self.twins.items():
            for scenario in self.scenarios:
                small = scenario.scaled(tp_by=twin.tp_by, ep_by=twin.ep_by)
                for layout in (small.source, small.target):
                    for refusal in twin.model.refusals(layout):
                        raise ValueError(
                            f"twin {name}, scenario {scenario.id}, {layout}: {refusal}"
                        )
        return self


class RefitCluster(Model):
    """Speeds of a machine, for lower bounds; GB is 10**9 bytes.

    Attributes:
        domain_gpus: GPUs that reach each other by the scale-up fabric (NVLink).
        scale_up_gbyte_s: Per GPU and direction, inside the domain.
        nic_gbyte_s: Per GPU and direction, between domains.
        hbm_gbyte: Memory of one GPU.
    """

    name: str
    hardware: str
    domain_gpus: Positive
    scale_up_gbyte_s: Annotated[float, Field(gt=0)]
    nic_gbyte_s: Annotated[float, Field(gt=0)]
    hbm_gbyte: Annotated[float, Field(gt=0)]
