"""What a topology file can say: pools of workers, a router, how KV moves."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from pytest_pd.spec.base import Model

Positive = Annotated[int, Field(ge=1)]


class ModelSpec(Model):
    """Which weights are served, and under which name."""

    path: str
    served_name: str
    precision: str | None = None


class EngineSpec(Model):
    """Which engine, and what all of its roles share."""

    kind: str
    executable: str | None = None
    version: str | None = None
    image: str | None = None
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    faults: tuple[dict[str, Any], ...] = ()


class KvTransferSpec(Model):
    """How KV goes from prefill to decode."""

    connector: str
    path: str | None = None
    config: dict[str, Any] = Field(default_factory=dict)


class PoolSpec(Model):
    """Replicas of one role that are configured alike."""

    replicas: Positive = 1
    tp: Positive = 1
    pp: Positive = 1
    dp: Positive = 1
    ep: Positive | None = None
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    port: int | None = None


class RouterSpec(Model):
    """What stands in front of the workers."""

    kind: str
    port: int | None = None
    policy: str | None = None
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    faults: tuple[dict[str, Any], ...] = ()


class TopologySpec(Model):
    """A named set of pools behind one router."""

    name: str
    hardware: str | tuple[str, ...]
    model: ModelSpec
    engine: EngineSpec
    kv_transfer: KvTransferSpec | None = None
    prefill: PoolSpec | None = None
    decode: PoolSpec | None = None
    aggregated: PoolSpec | None = None
    router: RouterSpec | None = None
    level: Literal["quick", "standard", "full"] = "quick"
    determinism: Literal["exact", "floor"] = "exact"
