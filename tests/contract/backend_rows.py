"""One row per backend: how a test gets a place where it can really start things.

A row is a context manager that gets a scratch folder and yields a `Place`, or
skips with the command that installs what is missing (`tests.services.require`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pytest_pd.provision.identity import marked_with
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.site_slurm import SlurmSite
from tests import services_slurm, services_sshd
from tests.services import require
from tests.services_kube import NAMESPACE, cluster_for, kube
from tests.services_slurm import slurm_site
from tests.services_sshd import sshd_hosts


def here(run_id: str) -> list[int]:
    """Return the processes of a run on this machine."""
    return list(marked_with(f"{run_id}/"))


@dataclass(frozen=True)
class Place:
    """A cluster that is up.

    Attributes:
        root: Where run directories may lie, so that nodes see them.
        alive: Run id to whatever still lives of it; empty when nothing does.
        slack_s: What may pass after the TTL until everything is gone.
        nodes: Nodes that a plan may use.
    """

    cluster: ClusterSpec
    root: Path
    alive: Callable[[str], list] = here
    slack_s: float = 15.0
    nodes: int = 2


@contextmanager
def local(folder: Path) -> Iterator[Place]:
    yield Place(ClusterSpec(name="contract", lease_ttl_s=3.0), folder)


@contextmanager
def slurm(folder: Path) -> Iterator[Place]:
    if why := services_slurm.missing():
        require("slurm", why)
    with slurm_site(folder / "slurm", 4) as made, made.as_default():
        cluster = ClusterSpec(
            name="contract",
            backend="slurm",
            hardware="gb200",
            nodes=4,
            gpus_per_node=4,
            lease_ttl_s=3.0,
            slurm=SlurmSite(partition="batch", time_limit_min=10),
        )
        yield Place(cluster, folder, nodes=4)


@contextmanager
def ssh(folder: Path) -> Iterator[Place]:
    if why := services_sshd.missing():
        require("sshd", why)
    with sshd_hosts(folder / "sshd", 3) as hosts:
        cluster = ClusterSpec(
            name="contract",
            backend="ssh",
            lease_ttl_s=3.0,
            ssh=hosts.site(run_dir=str(folder / "it's remote")),
        )
        yield Place(cluster, folder, nodes=3)


@contextmanager
def kubernetes(folder: Path) -> Iterator[Place]:
    with kube() as plane:
        # one namespace for all tests: making and deleting one takes seconds
        cluster = cluster_for(plane, namespace=NAMESPACE)
        yield Place(cluster, folder, nodes=3)


ROWS: dict[str, Callable[[Path], AbstractContextManager[Place]]] = {
    "kubernetes": kubernetes,
    "local": local,
    "slurm": slurm,
    "ssh": ssh,
}
