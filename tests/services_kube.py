"""A real Kubernetes control plane for tests, and looks into it by kubectl."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from pytest_pd.provision.kube_local import assets
from pytest_pd.provision.kube_local.control_plane import Plane, control_plane
from pytest_pd.provision.kubernetes.resource import OURS
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.site_kubernetes import KubernetesSite
from tests.kit import wait_until
from tests.services import require

IMAGE = "pytest-pd.local/host"
NAMESPACE = "shared"


@contextmanager
def kube(*, gpus: int = 64) -> Iterator[Plane]:
    """Yield a control plane with a namespace that others use too, or skip."""
    if why := assets.missing():
        require("kube", f"{why}: docs/how-to/kubernetes.md")
    with control_plane(gpus=gpus) as plane:
        kubectl(plane, "create", "namespace", NAMESPACE)
        wait_until(
            lambda: (
                kubectl(
                    plane, "get", "sa", "default", "-n", NAMESPACE, check=False
                ).returncode
                == 0
            ),
            "the default service account",
        )
        yield plane


def kubectl(
    plane: Plane, *words: str, check: bool = True, text: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run kubectl against the control plane."""
    done = subprocess.run(
        [plane.kubectl, "--kubeconfig", str(plane.kubeconfig), *words],
        capture_output=True,
        text=True,
        check=False,
        input=text,
    )
    assert done.returncode == 0 or not check, done.stderr
    return done


def site_for(plane: Plane, **fields: object) -> KubernetesSite:
    """Return how the backend reaches the control plane."""
    given = {
        "kubectl": plane.kubectl,
        "kubeconfig": str(plane.kubeconfig),
        "image": IMAGE,
        "guard_image": IMAGE,
        "schedule_s": 10.0,
        **fields,
    }
    return KubernetesSite.model_validate(given)


def cluster_for(plane: Plane, **fields: object) -> ClusterSpec:
    """Return the cluster file of the control plane."""
    return ClusterSpec(
        name="kube",
        backend="kubernetes",
        lease_ttl_s=3.0,
        nodes=8,
        gpus_per_node=8,
        kubernetes=site_for(plane, **fields),
    )


def objects_of(plane: Plane, run_id: str) -> list[str]:
    """Return ``Pod/name`` of everything that carries a run's label, of every kind."""
    kinds = ",".join(("namespace", *(kind.lower() for kind in OURS)))
    words = ("get", kinds, "-A", "-l", f"pytest-pd/run={run_id}", "-o", "json")
    items = json.loads(kubectl(plane, *words).stdout)["items"]
    return [f"{each['kind']}/{each['metadata']['name']}" for each in items]
