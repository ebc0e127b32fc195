"""What will run where: pure data that can be printed, compared and replayed.

A plan names everything with final values. Facts that only an allocation knows
(addresses of nodes, ports already taken) enter as `SiteFacts`, and the plan is
made again with them: nothing in it is a placeholder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """What a service does in the topology."""

    PREFILL = "prefill"
    DECODE = "decode"
    AGGREGATED = "aggregated"
    ROUTER = "router"
    CONTROL = "control"


WORKERS = (Role.PREFILL, Role.DECODE, Role.AGGREGATED)


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """What an allocation knows and a specification cannot.

    Attributes:
        run_dir: Run directory of this topology as the services see it.
        addresses: Planned node name to the address its services listen on and
            the others use; absent names are shown as themselves.
        reach: The same for the harness, where it goes another way (port-forward).
        busy: (node name, port) pairs that are taken already.
        python: Interpreter that runs our own programs on the nodes.
        port_offset: Added to every port that no specification fixes, so that
            topologies which start at the same moment do not meet.
    """

    run_dir: str = "."
    run_id: str = "run"
    addresses: Mapping[str, str] = field(default_factory=dict)
    reach: Mapping[str, str] = field(default_factory=dict)
    busy: frozenset[tuple[str, int]] = frozenset()
    python: str = "python3"
    port_offset: int = 0


UNKNOWN_SITE = SiteFacts()
"""What is known before there is an allocation."""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One machine of the plan.

    Attributes:
        name: Name inside the plan, ``node0`` and up.
        address: Address or host name; equals `name` before the allocation.
        gpus: GPUs that the cluster gives this node.
        gpus_used: GPUs that services of this plan use.
    """

    name: str
    address: str
    gpus: int
    gpus_used: int


@dataclass(frozen=True, slots=True)
class ReadyPlan:
    """When a service counts as ready.

    Attributes:
        kind: ``http`` (GET answers 2xx), ``tcp`` (port accepts), ``log`` (a
            line matches), ``started`` (the process lives).
        target: URL, ``host:port`` or regular expression.
        budget_s: Seconds from start after which waiting ends.
        stall_s: Seconds without any new log line or stage after which it ends.
        stages: (regular expression, name) pairs that mark progress in the log.
        body: Regular expression that an ``http`` answer must match as well, with
            ``.`` for every character; empty when the status says it all.
    """

    kind: str
    target: str
    budget_s: float = 600.0
    stall_s: float = 300.0
    stages: tuple[tuple[str, str], ...] = ()
    body: str = ""


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """One process to start, whatever starts it.

    Attributes:
        name: Unique in the plan and safe as a file name: ``prefill-0``.
        argv: Exact words; no shell reads them.
        env: Variables set on top of what the backend inherits.
        env_from_host: Names of secrets passed on from the harness's
            environment; their values are in no plan, log or command line.
        env_unset: Patterns (``DYN_*``) removed from the inherited environment.
        gpu_ids: Node-local GPU ids.
        ranks: Ranks of the replica's world that this process holds: one per
            GPU, or per rank where there are no GPUs.
        ports: Purpose to port: ``http``, ``side_channel``, ``metrics``.
        log: Path relative to the run directory.
        after: Services that must be ready before this one starts.
        env_source: Which part of the specification each variable comes from.
        files: Path below the run directory to text that must be there before
            the service starts.
        shm_gib: Size of ``/dev/shm``; `rdma_devices` alike for containers.
    """

    name: str
    role: Role
    node: str
    argv: tuple[str, ...]
    log: str
    ready: ReadyPlan
    env: Mapping[str, str] = field(default_factory=dict)
    env_from_host: tuple[str, ...] = ()
    env_unset: tuple[str, ...] = ()
    gpu_ids: tuple[int, ...] = ()
    ranks: tuple[int, ...] = ()
    ports: Mapping[str, int] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    replica: int = 0
    image: str | None = None
    mounts: tuple[str, ...] = ()
    cpus: int | None = None
    memory_gib: float | None = None
    stop_grace_s: float = 10.0
    env_source: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    shm_gib: float | None = None
    rdma_devices: int | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A base URL that answers the OpenAI API.

    Attributes:
        service: Name of the `ServicePlan` behind it.
        url: Base URL without a trailing slash.
        ranks: Data-parallel ranks it serves; empty when it has none.
        metrics_url: Prometheus page, or None when there is none.
        inside: URL among the services, where the harness goes another way.
    """

    service: str
    role: Role
    url: str
    ranks: tuple[int, ...] = ()
    metrics_url: str | None = None
    inside: str = ""

    @property
    def known_as(self) -> str:
        """URL by which the other services know it: what a router's labels say."""
        return self.inside or self.url


@dataclass(frozen=True, slots=True)
class KvShape:
    """Bytes of KV cache per token, from the model's shape and nothing else.

    bytes/token = layers x 2 (K and V) x kv_heads x head_dim x itemsize.
    """

    layers: int
    kv_heads: int
    head_dim: int
    itemsize: int

    @property
    def bytes_per_token(self) -> int:
        return self.layers * 2 * self.kv_heads * self.head_dim * self.itemsize


@dataclass(frozen=True, slots=True)
class ExpectedEvidence:
    """What must be seen when prefill really hands its KV to decode.

    Attributes:
        kv: Shape of the model's KV; None when the model's config is not here.
        block_tokens: Tokens per KV block; None when the engine decides.
        transfer: ``shared_storage``, ``pull`` or ``none``.
        whole_blocks: Only complete blocks are handed over.
        true_tokens: False for engines that invent their tokens (mockers).
        deterministic: ``exact``: the same prompt gives the same tokens on every
            deployment; ``floor``: only up to a measured floor.
        kv_path: Folder of shared-storage transfer, as the nodes see it.
    """

    kv: KvShape | None
    block_tokens: int | None
    transfer: str
    whole_blocks: bool
    true_tokens: bool = True
    deterministic: str = "exact"
    kv_path: str = ""


@dataclass(frozen=True, slots=True)
class DeploymentPlan:
    """Everything that one topology starts, and where its router answers.

    Attributes:
        name: Topology name; rehearsals carry ``@rehearsal`` behind it.
        identity: Hash of what was asked for, without addresses, ports, paths.
        hardware: Hardware mark: ``cpu``, ``gb200``, ...
        engine: Registered engine name; `router` alike.
        notes: Sentences for the person reading the plan: what differs from an
            old recipe, what was derived.
        budgets_s: Stage (``queue``, ``setup``, ``ready``, ``tests``,
            ``teardown``) to seconds, in the order of a run.
        performance_only: Tokens are bent on purpose (forced acceptance): no
            verdict on correctness or accuracy.
        assumed: Planned for hardware that the cluster has not: only to be read.
        kubernetes: The topology's section of that name.
        disk_bytes: Logs, and KV files of shared storage; weights not counted.
    """

    name: str
    identity: str
    hardware: str
    engine: str
    router: str
    served_model: str
    model_path: str
    nodes: tuple[NodePlan, ...]
    services: tuple[ServicePlan, ...]
    endpoints: tuple[Endpoint, ...]
    expected: ExpectedEvidence
    level: str = "standard"
    rehearsal: bool = False
    disk_bytes: int = 0
    notes: tuple[str, ...] = ()
    budgets_s: Mapping[str, float] = field(default_factory=dict)
    performance_only: bool = False
    assumed: bool = False
    kubernetes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Base URL that clients use: the router, else the only worker."""
        routers = [e.url for e in self.endpoints if e.role is Role.ROUTER]
        return routers[0] if routers else self.endpoints[0].url

    @property
    def gpus(self) -> int:
        return sum(node.gpus_used for node in self.nodes)

    @property
    def gpus_held(self) -> int:
        """GPUs of all nodes of the plan, idle ones too."""
        return sum(node.gpus for node in self.nodes)

    @property
    def gpu_hours(self) -> float:
        """GPU-hours if every budget but the queue's is used up, idle GPUs too."""
        held_s = sum(s for stage, s in self.budgets_s.items() if stage != "queue")
        return self.gpus_held * held_s / 3600

    def of_role(self, role: Role) -> tuple[Endpoint, ...]:
        """Return the endpoints of one role, in replica order."""
        return tuple(e for e in self.endpoints if e.role is role)

    def service(self, name: str) -> ServicePlan:
        """Return the service called `name`.

        Raises:
            KeyError: the plan has no such service.
        """
        for service in self.services:
            if service.name == name:
                return service
        raise KeyError(name)
