"""What is served, by which engine, and how KV moves between its roles."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from pytest_pd.spec.base import Args, Env, Model, Positive


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
    args: Args = ()
    env: Env = Field(default_factory=dict)
    env_from_host: tuple[str, ...] = ()
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
