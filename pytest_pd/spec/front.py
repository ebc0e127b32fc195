"""What stands beside the workers: routers and the control plane."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from pytest_pd.spec.base import Args, Env, Model, Port, Positive, Replicas, Seconds
from pytest_pd.spec.pool import NodeRef, ResourceSpec


class AffinitySpec(Model):
    """Which requests stay on one worker; clients send the same header."""

    header: str
    lifetime_s: Seconds | None = None


class RouterSpec(Model):
    """What stands in front of the workers: one router, or a fleet of them.

    Attributes:
        balancer: What spreads requests over several replicas; carried only.
        policy: Neutral name (``round_robin``, ``least_loaded``, ``kv``,
            ``consistent_hash``, ``random``) that each kind maps to its own.
        node: Index or name of a node, ``first``, ``own`` (a node of its own),
            or a role: that role's first node.
        config: Kind-specific configuration, rendered to a file.
    """

    kind: str
    replicas: Replicas = 1
    balancer: str | None = None
    port: Port | None = None
    ports: dict[str, Port] = Field(default_factory=dict)
    policy: str | None = None
    node: NodeRef | None = None
    executable: str | None = None
    image: str | None = None
    mounts: tuple[str, ...] = ()
    args: Args = ()
    env: Env = Field(default_factory=dict)
    env_from_host: tuple[str, ...] = ()
    config: dict[str, Any] = Field(default_factory=dict)
    session_affinity: AffinitySpec | None = None
    resources: ResourceSpec = ResourceSpec()
    log: str = "logs/{name}.log"
    faults: tuple[dict[str, Any], ...] = ()


class ControlPlaneSpec(Model):
    """Services that workers and routers find each other through.

    Attributes:
        services: Names, started in this order: ``etcd``, ``nats``.
        node: As for a router; ``own`` is a node without GPUs of its own.
        executables: Service to program, where it is not on PATH.
    """

    services: tuple[Literal["etcd", "nats"], ...]
    node: NodeRef | None = None
    ports: dict[str, Port] = Field(default_factory=dict)
    nats_max_payload_mb: Positive | None = None
    args: dict[str, Args] = Field(default_factory=dict)
    executables: dict[str, str] = Field(default_factory=dict)
    image: str | None = None
