"""What a pool of workers can say: shape, placement, arguments, environment."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pytest_pd.spec.base import Args, Count, Env, Model, Name, Port, Positive, Replicas

DpMode = Literal["internal", "external", "hybrid"]
NodeRef = Count | Name


class SpeculativeSpec(Model):
    """Speculative decoding of one role.

    Attributes:
        model: Draft weights; None for methods that need none (``mtp``).
        forced_acceptance: Synthetic acceptance length. Performance only:
            correctness and accuracy suites refuse a topology that sets it.
    """

    method: str
    num_tokens: Positive = 1
    model: str | None = None
    forced_acceptance: float | None = Field(default=None, gt=0)


class KvOffloadSpec(Model):
    """A second tier for KV blocks; its size counts as memory in preflight."""

    tier: Literal["host", "disk", "store"] = "host"
    size_gib: float = Field(gt=0)
    backend: str | None = None


class KvEventsSpec(Model):
    """Publishing of KV events; takes one port per data-parallel rank."""

    publisher: str = "zmq"
    topic: str = ""
    config: dict[str, Any] = Field(default_factory=dict)


class MoeSpec(Model):
    """Expert kernels and balancing; names are passed through.

    Attributes:
        experts: Routed experts of the model, to check `eplb_slots` against.
        eplb_slots: Physical expert slots; >= experts, divisible by ep.
    """

    backend: str | None = None
    all2all: str | None = None
    experts: Positive | None = None
    eplb_slots: Positive | None = None

    @model_validator(mode="after")
    def _slots_hold_experts(self) -> Self:
        if self.eplb_slots and self.experts and self.eplb_slots < self.experts:
            raise ValueError(
                f"eplb_slots {self.eplb_slots} < experts {self.experts}: "
                "every expert needs a slot"
            )
        return self


class ResourceSpec(Model):
    """What one process of the role asks of its node."""

    cpu: float | None = Field(default=None, gt=0)
    memory_gib: float | None = Field(default=None, gt=0)
    shm_gib: float | None = Field(default=None, gt=0)


class WorkerSpec(Model):
    """One replica that differs from its pool: pins, and overlays of its settings.

    Attributes:
        node: Node index or name of the replica's first node.
        nodes: Node of each of the replica's nodes, when it has several.
        gpus: Node-local GPU ids, the same on every node of the replica.
    """

    node: NodeRef | None = None
    nodes: tuple[NodeRef, ...] = ()
    gpus: tuple[Count, ...] = ()
    port: Port | None = None
    ports: dict[str, Port] = Field(default_factory=dict)
    tp: Positive | None = None
    pp: Positive | None = None
    dp: Positive | None = None
    ep: Positive | None = None
    gpus_per_replica: Positive | None = None
    nodes_per_replica: Positive | None = None
    args: Args = ()
    env: Env = Field(default_factory=dict)
    image: str | None = None
    log: str | None = None
    logs: tuple[str, ...] = ()
    faults: tuple[dict[str, Any], ...] = ()

    @model_validator(mode="after")
    def _one_way_to_pin(self) -> Self:
        if self.node is not None and self.nodes:
            raise ValueError("give node or nodes, not both")
        return self

    @property
    def pins(self) -> tuple[NodeRef, ...]:
        """Nodes asked for, in the order of the replica's processes."""
        return self.nodes or (() if self.node is None else (self.node,))


class PoolSpec(Model):
    """Replicas of one role that are configured alike.

    Attributes:
        attention_dp: Attention data parallelism inside tp: `dp` then takes no
            GPUs of its own.
        pcp: Prefill context parallel size; `dcp` the same for decode. pcp
            multiplies the GPUs of a replica, dcp splits KV inside tp.
        gpus_per_replica: Cross-check of what the engine derives from the shape;
            decides where the engine derives nothing.
        dp_mode: Who balances over data-parallel ranks: ``internal`` (one API
            per replica), ``hybrid`` (one per node), ``external`` (one per rank).
        visible_gpus: ``own``: a process sees its GPUs; ``node``: it sees all
            GPUs of its node, its own first.
        config: Engine configuration as a mapping, rendered to a file or flag.
        workers: Replica by replica, pins and differences; when given, its
            length is the number of replicas.
        port: First API port; further replicas on the same node count up.
        ports: The same for other purposes, for example ``side_channel``.
        log: Log file below the run directory; besides the usual placeholders
            ``{name}``, ``{replica}`` and ``{index}`` of the process.
        logs: One log file for each process of the replica, in their order.
    """

    replicas: Replicas = 1
    tp: Positive = 1
    pp: Positive = 1
    dp: Positive = 1
    ep: Positive | None = None
    attention_dp: bool = False
    pcp: Positive = 1
    dcp: Positive = 1
    gpus_per_replica: Positive | None = None
    nodes_per_replica: Positive | None = None
    dp_mode: DpMode = "internal"
    visible_gpus: Literal["own", "node"] = "own"
    args: Args = ()
    env: Env = Field(default_factory=dict)
    env_from_host: tuple[str, ...] = ()
    config: dict[str, Any] = Field(default_factory=dict)
    image: str | None = None
    mounts: tuple[str, ...] = ()
    port: Port | None = None
    ports: dict[str, Port] = Field(default_factory=dict)
    node: NodeRef | None = None
    workers: tuple[WorkerSpec, ...] = ()
    kv_role: Literal["producer", "consumer", "both"] | None = None
    kv_cache_dtype: str | None = None
    prefix_caching: bool | None = None
    kv_offload: KvOffloadSpec | None = None
    kv_events: KvEventsSpec | None = None
    speculative: SpeculativeSpec | None = None
    moe: MoeSpec | None = None
    resources: ResourceSpec = ResourceSpec()
    rdma_devices: Count | None = None
    stop_grace_s: float = Field(default=10.0, ge=0)
    log: str = "logs/{name}.log"
    logs: tuple[str, ...] = ()
    faults: tuple[dict[str, Any], ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _count_workers(cls, data: Any) -> Any:
        """Let `workers` say how many replicas there are."""
        workers = data.get("workers") if isinstance(data, dict) else None
        if workers and isinstance(workers, list | tuple):
            return {"replicas": len(workers), **data}
        return data

    @model_validator(mode="after")
    def _shape_is_whole(self) -> Self:
        if self.workers and len(self.workers) != self.replicas:
            raise ValueError(
                f"replicas {self.replicas} but {len(self.workers)} workers are listed"
            )
        if self.attention_dp and self.tp % self.dp:
            raise ValueError(
                f"attention_dp puts dp inside tp, and tp {self.tp} is not "
                f"divisible by dp {self.dp}"
            )
        if self.tp % self.dcp:
            raise ValueError(
                f"dcp splits KV inside tp, and tp {self.tp} is not "
                f"divisible by dcp {self.dcp}"
            )
        slots = self.moe.eplb_slots if self.moe else None
        if slots and self.ep and slots % self.ep:
            raise ValueError(f"eplb_slots {slots} is not divisible by ep {self.ep}")
        return self

    @property
    def world(self) -> int:
        """Ranks of one replica: tp x pp x pcp, times dp unless it is inside tp."""
        dp = 1 if self.attention_dp else self.dp
        return self.tp * self.pp * self.pcp * dp

    def worker(self, replica: int) -> PoolSpec:
        """Return the settings of one replica: the pool's, overlaid by its own.

        Arguments are appended, environments merged, other values replaced.
        """
        if not self.workers:
            return self
        own = self.workers[replica]
        update: dict[str, Any] = {
            name: value
            for name in (
                *("tp", "pp", "dp", "ep", "port", "image", "log"),
                *("gpus_per_replica", "nodes_per_replica"),
            )
            if (value := getattr(own, name)) is not None
        }
        update["args"] = (*self.args, *own.args)
        update["logs"] = own.logs or self.logs
        update["env"] = {**self.env, **own.env}
        update["ports"] = {**self.ports, **own.ports}
        update["faults"] = (*self.faults, *own.faults)
        return self.model_copy(update=update)
