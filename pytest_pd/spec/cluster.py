"""What a cluster file can say: where services run and how to get there."""

from __future__ import annotations

from typing import Literal

from pytest_pd.spec.base import Model


class ClusterSpec(Model):
    """A place with nodes and GPUs, reached through one backend."""

    name: str
    backend: Literal["local", "ssh", "slurm", "kubernetes"] = "local"
    hardware: str = "cpu"
    nodes: int = 1
    gpus_per_node: int = 0
    lease_ttl_s: float = 5.0
