"""What a topology file can say: pools of workers, a router, how KV moves."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pytest_pd.spec.base import Model, Name, Positive
from pytest_pd.spec.engine import EngineSpec, KvMemberSpec, KvTransferSpec, ModelSpec
from pytest_pd.spec.extra import (
    BudgetSpec,
    EvalSpec,
    IdentitySpec,
    PlacementSpec,
    ProfilingSpec,
    SetupSpec,
    SoftwareSpec,
)
from pytest_pd.spec.front import AffinitySpec, ControlPlaneSpec, RouterSpec
from pytest_pd.spec.pool import PoolSpec, WorkerSpec
from pytest_pd.spec.site_kubernetes import KubernetesSpec
from pytest_pd.spec.slo import SloSpec
from pytest_pd.spec.workload import WorkloadSpec

__all__ = [
    "AffinitySpec",
    "BudgetSpec",
    "ControlPlaneSpec",
    "EngineSpec",
    "KvMemberSpec",
    "KvTransferSpec",
    "ModelSpec",
    "PlacementSpec",
    "PoolSpec",
    "Positive",
    "RouterSpec",
    "SloSpec",
    "TopologySpec",
    "WorkerSpec",
]


class TopologySpec(Model):
    """A named set of pools behind one router.

    Attributes:
        hardware: Kind of machine, or several that the same file is meant for.
        kubernetes: Names and labels there; other backends do not look at it.
        encode: Reserved for a third phase; refused until it is supported.
        workloads: Names of workload files, or workloads written out; they go
            with the shape, so that a variant can replace them.
        level: How much is tested by default: ``quick`` on CPU, else ``standard``.
        determinism: ``exact``: the same prompt gives the same tokens on every
            deployment; ``floor``: up to a measured floor. Default by hardware.
    """

    name: Name
    description: str = ""
    hardware: Name | tuple[Name, ...]
    model: ModelSpec
    engine: EngineSpec
    kv_transfer: KvTransferSpec | None = None
    prefill: PoolSpec | None = None
    decode: PoolSpec | None = None
    aggregated: PoolSpec | None = None
    encode: dict[str, Any] | None = None
    router: RouterSpec | None = None
    control_plane: ControlPlaneSpec | None = None
    placement: PlacementSpec = PlacementSpec()
    budgets: BudgetSpec = BudgetSpec()
    workloads: tuple[str | WorkloadSpec, ...] = ()
    evals: tuple[str | EvalSpec, ...] = ()
    slo: SloSpec | None = None
    identity: IdentitySpec = IdentitySpec()
    software: dict[str, SoftwareSpec] = Field(default_factory=dict)
    setup: SetupSpec | None = None
    profiling: ProfilingSpec | None = None
    kubernetes: KubernetesSpec | None = None
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

    @property
    def performance_only(self) -> bool:
        """Whether answers are bent on purpose: forced acceptance of drafts."""
        pools = (self.prefill, self.decode, self.aggregated)
        return any(
            pool.speculative and pool.speculative.forced_acceptance
            for pool in pools
            if pool
        )

    @model_validator(mode="after")
    def _roles_are_whole(self) -> Self:
        if self.encode is not None:
            raise ValueError("an encode role is not supported yet; the name is kept")
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
