"""What a topology file can say: pools of workers, a router, how KV moves."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pytest_pd.spec.base import Model, Name, Port, Positive, Seconds
from pytest_pd.spec.pool import NodeRef, PoolSpec, ResourceSpec, WorkerSpec

__all__ = [
    "BudgetSpec",
    "ControlPlaneSpec",
    "EngineSpec",
    "KvTransferSpec",
    "ModelSpec",
    "PlacementSpec",
    "PoolSpec",
    "Positive",
    "RouterSpec",
    "TopologySpec",
    "WorkerSpec",
]


class ModelSpec(Model):
    """Which weights are served, and under which name.

    Attributes:
        path: Folder, or hub name; ``fixtures/...`` is looked up in the project
            and then in the installed package.
        ref: Alias that the cluster file's ``models:`` turns into a path.
    """

    path: str = ""
    served_name: str
    ref: str | None = None
    precision: str | None = None
    revision: str | None = None
    tokenizer: str | None = None

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if not self.path and not self.ref:
            raise ValueError("give path, or ref with an entry in the cluster's models")
        return self


class EngineSpec(Model):
    """Which engine, and what all of its roles share.

    Attributes:
        block_tokens: Tokens per KV block; None leaves it to the engine.
    """

    kind: str
    executable: str | None = None
    version: str | None = None
    image: str | None = None
    block_tokens: Positive | None = None
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    config: dict[str, Any] = Field(default_factory=dict)
    faults: tuple[dict[str, Any], ...] = ()


class KvMemberSpec(Model):
    """One member of a composite connector."""

    connector: str
    backend: str | None = None
    config: dict[str, Any] = Field(default_factory=dict)


class KvTransferSpec(Model):
    """How KV goes from prefill to decode.

    Attributes:
        backend: Transport under the connector: ``UCX``, ``NIXL``.
        path: Folder of shared-storage connectors.
        connectors: Members of a composite connector, in order.
        buffer_tokens: Tokens that the transceiver holds; 0 is zero-copy.
    """

    connector: str
    backend: str | None = None
    path: str | None = None
    runtime: str | None = None
    connectors: tuple[KvMemberSpec, ...] = ()
    buffer_tokens: int | None = Field(default=None, ge=0)
    timeout_ms: Positive | None = None
    config: dict[str, Any] = Field(default_factory=dict)


class RouterSpec(Model):
    """What stands in front of the workers."""

    kind: str
    replicas: Positive = 1
    balancer: str | None = None
    port: Port | None = None
    ports: dict[str, Port] = Field(default_factory=dict)
    policy: str | None = None
    node: NodeRef | None = None
    executable: str | None = None
    image: str | None = None
    mounts: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    config: dict[str, Any] = Field(default_factory=dict)
    session_affinity: dict[str, Any] | None = None
    resources: ResourceSpec = ResourceSpec()
    log: str = "logs/{name}.log"
    faults: tuple[dict[str, Any], ...] = ()


class ControlPlaneSpec(Model):
    """Services that workers and routers find each other through.

    Attributes:
        services: Names, started in this order: ``etcd``, ``nats``.
    """

    services: tuple[str, ...]
    node: NodeRef | None = None
    ports: dict[str, Port] = Field(default_factory=dict)
    nats_max_payload_mb: Positive | None = None
    args: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    image: str | None = None


class PlacementSpec(Model):
    """Where processes go.

    Attributes:
        pack: Fill a node before the next one is opened; else spread.
        roles_share_nodes: ``off``: prefill and decode never share a node;
            ``auto``: only if there are too few nodes; ``preferred``: whenever
            they fit; ``required``: refuse what does not fit on shared nodes.
        gpus_per_node: GPUs of a node when the plan is made without a cluster.
        same_nvlink_domain: Both roles must lie in one NVLink domain.
    """

    pack: bool = True
    roles_share_nodes: Literal["off", "auto", "preferred", "required"] = "auto"
    gpus_per_node: Positive | None = None
    same_nvlink_domain: bool = False


class BudgetSpec(Model):
    """Seconds for each stage; a stage without a number keeps its default."""

    queue_s: Seconds | None = None
    setup_s: Seconds | None = None
    ready_s: Seconds | None = None
    stall_s: Seconds | None = None
    tests_s: Seconds | None = None
    teardown_s: Seconds | None = None
    allocation_s: Seconds | None = None


class TopologySpec(Model):
    """A named set of pools behind one router."""

    name: Name
    description: str = ""
    hardware: str | tuple[str, ...]
    model: ModelSpec
    engine: EngineSpec
    kv_transfer: KvTransferSpec | None = None
    prefill: PoolSpec | None = None
    decode: PoolSpec | None = None
    aggregated: PoolSpec | None = None
    router: RouterSpec | None = None
    control_plane: ControlPlaneSpec | None = None
    placement: PlacementSpec = PlacementSpec()
    budgets: BudgetSpec = BudgetSpec()
    level: Literal["quick", "standard", "full"] = Field(
        default_factory=lambda data: (
            "quick" if data.get("hardware") == "cpu" else "standard"
        )
    )
    determinism: Literal["exact", "floor"] = Field(
        default_factory=lambda data: (
            "exact" if data.get("hardware") == "cpu" else "floor"
        )
    )

    @property
    def hardware_kinds(self) -> tuple[str, ...]:
        """Every kind of hardware that the topology is meant for."""
        one = isinstance(self.hardware, str)
        return (self.hardware,) if one else tuple(self.hardware)  # type: ignore[return-value]

    @model_validator(mode="after")
    def _roles_are_whole(self) -> Self:
        if (self.prefill is None) != (self.decode is None):
            missing = "decode" if self.decode is None else "prefill"
            raise ValueError(
                f"there is no {missing} pool: a disaggregated topology has prefill "
                "and decode, any other has aggregated"
            )
        if not (self.prefill or self.aggregated):
            raise ValueError(
                "there is no worker: give prefill and decode, or aggregated"
            )
        if self.prefill and not self.kv_transfer:
            raise ValueError("prefill and decode need kv_transfer")
        return self
