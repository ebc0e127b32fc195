"""The seams engines and routers fill: pure functions from a shape to a launch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pytest_pd.plan.model import Endpoint, ReadyPlan, Role, SiteFacts
from pytest_pd.spec.topology import PoolSpec, TopologySpec

POD_NAMESPACE = "$(POD_NAMESPACE)"
"""In words of a pod's command: what the kubelet fills in."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One process of one replica, placed: what an engine turns into argv.

    Attributes:
        index: Position of this process inside its replica, 0 for the head.
        count: Processes of the replica: one per node, or one per data-parallel
            rank where `dp_mode` is ``external``.
        address: Address that this process listens on.
        head: Address of the replica's first node.
        gpu_ids: Node-local GPU ids of this process.
        ports: Purpose to first port, as asked for by `Engine.ports`.
        head_ports: The ports of the replica's first process.
        peers: Addresses of control-plane services by name, for example
            ``nats`` to ``10.0.0.1:4222``.
        ranks: Ranks of the replica's world on this process.
        dp_ranks: Data-parallel ranks on this process; a rank that spans
            several processes is on each of them.
        pool: The role's settings, this replica's own laid over them; no
            placeholder is left in it nor in `topology`.
    """

    name: str
    role: Role
    replica: int
    index: int
    count: int
    address: str
    head: str
    gpu_ids: tuple[int, ...]
    ports: Mapping[str, int]
    head_ports: Mapping[str, int]
    pool: PoolSpec
    topology: TopologySpec
    site: SiteFacts
    peers: Mapping[str, str] = field(default_factory=dict)
    ranks: tuple[int, ...] = ()
    dp_ranks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Launch:
    """What an engine or a router answers for one process.

    Attributes:
        env: What the program itself needs; the plan lays engine.env, the
            role's env and the node's env over it, in this order.
        endpoint: False for followers that serve no API (headless).
        ranks: Global data-parallel ranks that the endpoint serves.
        metrics_port: Purpose of the port with ``/metrics``; empty for none.
        after: Roles that must be ready before this process starts; the control
            plane always comes first.
        files: Path below the run directory to text the program reads: an engine
            configuration. Its argv names it as ``{run_dir}/path``, filled in.
    """

    argv: tuple[str, ...]
    ready: ReadyPlan
    env: Mapping[str, str] = field(default_factory=dict)
    env_from_host: tuple[str, ...] = ()
    env_unset: tuple[str, ...] = ()
    endpoint: bool = True
    ranks: tuple[int, ...] = ()
    metrics_port: str = "http"
    notes: tuple[str, ...] = ()
    after: tuple[Role, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Handover:
    """What an engine promises about KV, for the expected evidence.

    Attributes:
        transfer: ``shared_storage``, ``pull`` or ``none``.
        block_tokens: Tokens per KV block; None when it cannot be known.
        whole_blocks: Only complete blocks are handed over.
        true_tokens: False for engines that invent their tokens.
    """

    transfer: str = "none"
    block_tokens: int | None = None
    whole_blocks: bool = False
    true_tokens: bool = True


@dataclass(frozen=True, slots=True)
class EvidenceNames:
    """How an engine says what it did; empty strings where it says nothing.

    Every metric is ``name`` or ``name{label="value"}``; values are counters.
    """

    prompt_tokens: str = ""
    computed_tokens: str = ""
    generated_tokens: str = ""
    external_tokens: str = ""
    external_queries: str = ""
    external_hits: str = ""
    transferred_bytes: str = ""
    transfer_seconds: str = ""
    transfers: str = ""
    transfer_failures: str = ""
    local_hits: str = ""
    requests: str = ""
    log_hit: str = ""
    log_inject: str = ""


@dataclass(frozen=True, slots=True)
class Program:
    """An executable that a plan needs, and how a user gets it."""

    name: str
    install: str


class Engine(Protocol):
    """Turns one placed worker into a launch. No I/O."""

    @property
    def name(self) -> str: ...

    def gpus_per_replica(self, pool: PoolSpec) -> int:
        """GPUs of one replica, by this engine's arithmetic of tp, pp, dp."""

    def ports(self, pool: PoolSpec) -> Mapping[str, int]:
        """Purpose to how many consecutive ports one process needs."""

    def check(self, topology: TopologySpec) -> tuple[str, ...]:
        """Refuse what this engine cannot do; return notes for the plan.

        Raises:
            SpecError: a combination the engine would die of, with the reason.
        """

    def launch(self, worker: Worker) -> Launch:
        """Return argv, environment and readiness of one process."""

    def handover(self, topology: TopologySpec) -> Handover:
        """Return how KV goes from prefill to decode, for the expected evidence."""

    def evidence(self, topology: TopologySpec) -> EvidenceNames:
        """Return the metric names and log lines of this engine's version."""

    def programs(self, topology: TopologySpec) -> Sequence[Program]:
        """Return the executables that must exist on the nodes."""


@dataclass(frozen=True, slots=True)
class RouterWitness:
    """How a router says which workers served a request.

    Attributes:
        prefill_requests: Counter with one label per worker URL.
        worker_label: That label's name; empty when the counter is of all workers
            together.
        id_pattern: Regular expression over the response id, with groups
            ``prefill`` and ``decode``; empty when the id says nothing.
        headers: Response headers naming (prefill, decode); empty when none.
        ask: Fields of a request that make the router name the workers in its answer.
        answer: Dotted paths in the answer to the names of (prefill, decode).
        log_pattern: Regular expression over the router's log, with groups
            ``prefill`` and ``decode`` on one line or on two, or with ``worker`` on
            one line per phase.
        settles_s: Seconds after a worker's death from which no request goes to it.
    """

    prefill_requests: str = ""
    decode_requests: str = ""
    worker_label: str = "worker"
    id_pattern: str = ""
    headers: tuple[str, str] = ("", "")
    ask: Mapping[str, object] = field(default_factory=dict)
    answer: tuple[str, str] = ("", "")
    log_pattern: str = ""
    settles_s: float = 3.0


class Router(Protocol):
    """Turns a placed router and the workers' endpoints into a launch. No I/O."""

    @property
    def name(self) -> str: ...

    def ports(self) -> Mapping[str, int]:
        """Purpose to how many consecutive ports the router needs."""

    def check(self, topology: TopologySpec) -> tuple[str, ...]:
        """Refuse what this router cannot do; return notes for the plan."""

    def launch(self, worker: Worker, endpoints: Sequence[Endpoint]) -> Launch:
        """Return argv, environment and readiness of the router."""

    def witness(self, topology: TopologySpec) -> RouterWitness:
        """Return how this router's word is read."""

    def programs(self, topology: TopologySpec) -> Sequence[Program]:
        """Return the executables that must exist on the router's node."""
