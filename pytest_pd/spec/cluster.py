"""What a cluster file can say: where services run and how to get there."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from pytest_pd.spec.base import Count, Model, Name, Positive, Seconds
from pytest_pd.spec.site_slurm import SlurmSite
from pytest_pd.spec.site_ssh import FabricSite, SshSite


class ClusterSpec(Model):
    """A place with nodes and GPUs, reached through one backend.

    Attributes:
        fabric: Which network interfaces engines and collectives use.
        slurm: Read when the backend is ``slurm``; `ssh` alike.
    """

    name: Name
    backend: Literal["local", "ssh", "slurm", "kubernetes"] = "local"
    hardware: str = "cpu"
    nodes: Positive = 1
    gpus_per_node: Count = 0
    lease_ttl_s: Seconds = Field(
        default_factory=lambda data: 5.0 if data.get("backend") == "local" else 120.0
    )
    models: dict[str, str] = Field(default_factory=dict)
    images: dict[str, str] = Field(default_factory=dict)
    env: dict[str, str] = Field(default_factory=dict)
    node_env: dict[str, dict[str, str]] = Field(default_factory=dict)
    fabric: FabricSite | None = None
    slurm: SlurmSite | None = None
    ssh: SshSite | None = None
    config: dict[str, Any] = Field(default_factory=dict)
