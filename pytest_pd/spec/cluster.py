"""What a cluster file can say: where services run and how to get there."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pytest_pd.spec.base import Env, Model, Name, NodeGpus, Nodes, Seconds
from pytest_pd.spec.site_kubernetes import KubernetesSite
from pytest_pd.spec.site_slurm import SlurmSite
from pytest_pd.spec.site_ssh import FabricSite, SshSite


class ClusterSpec(Model):
    """A place with nodes and GPUs, reached through one backend.

    Attributes:
        nodes: Machines there are; with an SSH inventory, its hosts.
        gpus_per_node: GPUs of each of them; a host of the inventory may differ.
        lease_ttl_s: How long services outlive a harness that died; 5 s on this
            machine, 120 s where the lease lies on a shared file system.
        models: Alias (``model.ref``) to path; `images` alike.
        cache_dir: Folder of the user's on the nodes for weights and compiled kernels,
            kept between runs; empty leaves each engine its own default.
        stand_in: The engines there only play (a ``vllm`` that computes a small model,
            say): little is offered, nothing is judged by the hardware's measure, and
            results are a rehearsal's, never compared with real ones.
        env: Environment of every service; `node_env` by node name on top of it.
        fabric: Which network interfaces engines and collectives use.
        slurm: Read when the backend is ``slurm``; `ssh` and `kubernetes` alike.
    """

    name: Name
    backend: Literal["local", "ssh", "slurm", "kubernetes"] = "local"
    hardware: str = "cpu"
    nodes: Nodes = 1
    gpus_per_node: NodeGpus = 0
    lease_ttl_s: Seconds = Field(
        default_factory=lambda data: 5.0 if data.get("backend") == "local" else 120.0
    )
    models: dict[str, str] = Field(default_factory=dict)
    images: dict[str, str] = Field(default_factory=dict)
    cache_dir: str = Field(default="", pattern=r"^(/.+[^/])?$")
    stand_in: bool = False
    env: Env = Field(default_factory=dict)
    node_env: dict[str, Env] = Field(default_factory=dict)
    fabric: FabricSite | None = None
    slurm: SlurmSite | None = None
    ssh: SshSite | None = None
    kubernetes: KubernetesSite | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    telemetry: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _count_hosts(cls, data: Any) -> Any:
        """Let an inventory say how many nodes there are."""
        ssh = data.get("ssh") if isinstance(data, dict) else None
        hosts = ssh.get("hosts") if isinstance(ssh, dict) else getattr(ssh, "hosts", ())
        if hosts and data.get("backend") == "ssh":
            return {"nodes": len(hosts), **data}
        return data

    @model_validator(mode="after")
    def _backend_has_its_section(self) -> Self:
        if self.backend == "ssh" and not (self.ssh and self.ssh.hosts):
            raise ValueError("backend ssh needs ssh.hosts, the machines to use")
        if self.backend == "ssh" and self.ssh and len(self.ssh.hosts) != self.nodes:
            raise ValueError(
                f"nodes says {self.nodes} and ssh.hosts lists {len(self.ssh.hosts)}"
            )
        return self

    @property
    def fabric_env(self) -> dict[str, str]:
        """Variables that keep engines and collectives on the right interfaces."""
        return self.fabric.env if self.fabric else {}

    @property
    def places(self) -> int:
        """Nodes that a plan may use: on Kubernetes every pod is one of its own."""
        if self.backend != "kubernetes":
            return self.nodes
        return (self.kubernetes or KubernetesSite()).max_pods

    @property
    def node_gpus(self) -> tuple[int, ...]:
        """GPUs of each node, in the order of the plan's nodes."""
        hosts = self.ssh.hosts if self.backend == "ssh" and self.ssh else ()
        if not hosts:
            return (self.gpus_per_node,) * self.places
        return tuple(
            self.gpus_per_node if host.gpus is None else host.gpus for host in hosts
        )

    @property
    def node_names(self) -> dict[str, int]:
        """What nodes may be called in a specification, with their index."""
        names = {f"node{index}": index for index in range(self.places)}
        hosts = self.ssh.hosts if self.backend == "ssh" and self.ssh else ()
        return names | {h.name or h.host: index for index, h in enumerate(hosts)}
