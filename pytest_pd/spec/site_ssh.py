"""What a cluster file can say about SSH hosts and about networks between nodes."""

from __future__ import annotations

from pytest_pd.spec.base import Model, Name, NodeGpus, Port, Positive, Seconds


class SshHost(Model):
    """One machine of the inventory.

    Attributes:
        host: Name or address; aliases of ``~/.ssh/config`` work.
        address: What services listen on and others use; None is `host` as the
            configuration resolves it.
    """

    host: str
    name: Name | None = None
    user: str | None = None
    port: Port | None = None
    address: str | None = None
    gpus: NodeGpus | None = None


class SshSite(Model):
    """Machines reached by SSH, and how.

    Attributes:
        config_file: Read like ``~/.ssh/config``, which is the default: names,
            users, keys, ProxyJump.
        known_hosts: Files of host keys; default those of the configuration, else
            ``~/.ssh/known_hosts``. A key that is absent or differs is an error.
        identity_files: Private keys; the agent and the configuration's keys are
            used as well.
        run_dir: Parent of the remote run directories.
        python: Interpreter on the hosts, 3.6 or later.
        package_python: Interpreter there that has this package, for the reference
            engine and the proxy; None is `python`.
        parallel: Connections opened at the same time.
    """

    hosts: tuple[SshHost, ...]
    config_file: str | None = None
    known_hosts: tuple[str, ...] = ()
    identity_files: tuple[str, ...] = ()
    run_dir: str = "/tmp"
    python: str = "python3"
    package_python: str | None = None
    connect_timeout_s: Seconds = 10.0
    keepalive_s: Positive = 15
    parallel: Positive = 32


class FabricSite(Model):
    """Network interfaces by purpose; each becomes the variables that engines read.

    Attributes:
        control: Interface of HTTP and rendezvous. Which address it has is known on
            the nodes only: slurm.address or an SSH host's address says so.
        collectives: Interface that NCCL and Gloo open their sockets on.
        rdma_devices: ``UCX_NET_DEVICES`` and ``NCCL_IB_HCA``: ``mlx5_0:1``.
        ucx_tls: Transports that UCX may use; leaving ``tcp`` out makes a KV
            transfer fail instead of falling back to TCP.
    """

    control: str | None = None
    collectives: str | None = None
    rdma_devices: tuple[str, ...] = ()
    ucx_tls: str | None = None

    @property
    def env(self) -> dict[str, str]:
        """Return what NCCL, Gloo and UCX read; only what is said here."""
        sockets = self.collectives or self.control
        devices = ",".join(self.rdma_devices)
        names = {
            "NCCL_SOCKET_IFNAME": sockets,
            "GLOO_SOCKET_IFNAME": sockets,
            "NCCL_IB_HCA": devices,
            "UCX_NET_DEVICES": devices,
            "UCX_TLS": self.ucx_tls,
        }
        return {name: value for name, value in names.items() if value}
