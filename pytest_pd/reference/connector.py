"""What a KV connector is to the engine: match, load, save, hand on, let go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pytest_pd.errors import SpecError
from pytest_pd.reference.mover import Mover
from pytest_pd.reference.request import Request

PULLING = ("NixlConnector", "ReferencePullConnector")
SHARING = ("SharedStorageConnector", "ExampleConnector")
_STOOD_IN = (
    "NixlPullConnector",
    "NixlPushConnector",
    "MooncakeConnector",
    "MoRIIOConnector",
    "MultiConnector",
    "LMCacheConnectorV1",
    "LMCacheMPConnector",
    "OffloadingConnector",
    "P2pNcclConnector",
)
"""Connectors of vLLM for which a rehearsal pulls over TCP."""

ROLES = ("kv_producer", "kv_consumer", "kv_both")
POLICIES = ("fail", "recompute")


@dataclass(frozen=True, slots=True)
class KvTransferConfig:
    """The parsed ``--kv-transfer-config``.

    Attributes:
        connector: Its class name in vLLM.
        role: One of `ROLES`.
        engine_id: Name of this engine for its peers; empty draws one.
        failure_policy: ``fail`` ends a request whose KV cannot be loaded with an
            error, ``recompute`` computes it here.
        extra: ``kv_connector_extra_config``.
    """

    connector: str
    role: str
    engine_id: str = ""
    failure_policy: str = "fail"
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(
        cls, content: Mapping[str, Any], *, rehearsed: bool = False
    ) -> KvTransferConfig:
        """Read the mapping that vLLM takes.

        Args:
            content: The parsed JSON.
            rehearsed: Let a pull stand in for connectors that only vLLM has.

        Raises:
            SpecError: an unknown role or policy, or no connector.
        """
        role = str(content.get("kv_role"))
        connector = str(content.get("kv_connector"))
        if rehearsed and connector in _STOOD_IN:
            connector = "ReferencePullConnector"
        if connector not in (*PULLING, *SHARING):
            raise SpecError.unknown("kv_connector", connector, (*PULLING, *SHARING))
        policy = str(content.get("kv_load_failure_policy", "fail"))
        if role not in ROLES:
            raise SpecError(
                f"Unsupported kv_role: {role}. Supported roles are {ROLES}",
                hint='add "kv_role": "kv_producer" or "kv_consumer"',
            )
        if policy not in POLICIES:
            raise SpecError.unknown("kv_load_failure_policy", policy, POLICIES)
        return cls(
            connector=connector,
            role=role,
            engine_id=str(content.get("engine_id") or ""),
            failure_policy=policy,
            extra=content.get("kv_connector_extra_config") or {},
        )

    @property
    def pulls(self) -> bool:
        """Whether KV is fetched over TCP, not through files."""
        return self.connector in PULLING

    @property
    def produces(self) -> bool:
        """Whether this engine gives KV away."""
        return self.role != "kv_consumer"

    @property
    def consumes(self) -> bool:
        """Whether this engine takes KV from others."""
        return self.role != "kv_producer"


@dataclass(frozen=True, slots=True)
class Transfer:
    """What one load moved.

    Attributes:
        tokens: Prompt tokens that are there now.
        size_bytes: Bytes of KV that came.
        descriptors: Contiguous pieces that were read.
        time_s: From the first byte sent to the last byte written.
        post_s: Of which until the reading was under way.
    """

    tokens: int
    size_bytes: int = 0
    descriptors: int = 0
    time_s: float = 0.0
    post_s: float = 0.0


class Connector(Protocol):
    """One way to hand KV over; called by the engine's thread unless said otherwise."""

    @property
    def config(self) -> KvTransferConfig: ...

    @property
    def cache_source(self) -> str:
        """Label of ``prompt_tokens_cached_by_source``."""

    def match(self, request: Request, local_tokens: int) -> int:
        """Return how many prompt tokens beyond `local_tokens` another engine has."""

    def load(
        self, request: Request, blocks: Sequence[int], local_tokens: int
    ) -> Transfer:
        """Write foreign KV to `blocks`; runs in a thread of its own.

        Raises:
            TransferError: it cannot be had.
        """

    def save(self, request: Request) -> None:
        """Give the KV of a computed prompt away, if that is done at once."""

    def hand_on(self, request: Request) -> Mapping[str, Any] | None:
        """Return ``kv_transfer_params`` if the request's blocks are to be kept."""

    def decline(self, request: Request) -> None:
        """Tell the producer that its blocks will not be fetched."""

    @property
    def lease_s(self) -> float:
        """Seconds that kept blocks wait to be fetched."""

    def close(self) -> None:
        """Stop listening."""


@dataclass(frozen=True, slots=True)
class Seat:
    """What a connector is given of the engine it serves.

    Attributes:
        rank: Global data-parallel rank.
        mover: Reads and writes the pool.
        block_size: Tokens of one block.
        released: To call with a request's name when its kept blocks were fetched;
            from any thread.
        env: Environment variables.
    """

    rank: int
    mover: Mover
    block_size: int
    released: Callable[[str], None]
    env: Mapping[str, str]


def make_connector(config: KvTransferConfig, seat: Seat) -> Connector:
    """Return the connector that `config` names, listening if it does.

    Raises:
        SpecError: its port is taken, or its folder cannot be made.
    """
    from pytest_pd.reference.pull import PullConnector
    from pytest_pd.reference.shared_storage import SharedStorageConnector

    return (
        PullConnector(config, seat)
        if config.pulls
        else SharedStorageConnector(config, seat)
    )
