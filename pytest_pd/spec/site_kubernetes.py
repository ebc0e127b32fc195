"""What cluster and topology files can say about Kubernetes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from pytest_pd.spec.base import Model, Name, Nodes, Positive, Seconds


class VolumeSpec(Model):
    """A volume that every service of the cluster mounts.

    Attributes:
        source: As in a pod: ``{persistentVolumeClaim: {claimName: weights}}``.
    """

    name: Name
    mount_path: str
    source: dict[str, Any]
    read_only: bool = False


class KubernetesSite(Model):
    """How to reach a cluster, and what its pods need.

    Attributes:
        kubeconfig: Absent: what kubectl takes by itself (``KUBECONFIG``).
        namespace: Use this one, which must be there; absent: one per run, which
            is made and deleted.
        local: Start a control plane of this machine from ``KUBEBUILDER_ASSETS``,
            with a stand-in for the kubelet that runs commands as processes here.
        image: Image of services that name none: rehearsals, proxy.
        python: Interpreter in that image that has this package.
        guard_image: Image with Python 3 and nothing else: of the pod that deletes
            a run whose harness died.
        reach: How the harness reaches pods: through ``kubectl port-forward``, or
            ``direct`` where pods' names resolve (inside of the cluster).
        load_from: Who sends the load of measurements: a ``pod`` of the cluster,
            or the harness through its ``port_forward``.
        load_image: Image of that pod, with Python 3.11 and numpy; absent: `image`,
            else that of the workers.
        load_cpus: What that pod asks for.
        max_pods: Pods that one topology may have.
        schedule_s: How long a pod may wait for a node, or for a busy registry.
        gpu_resource: What a GPU is called; `rdma_resource` alike.
    """

    kubectl: str = "kubectl"
    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = Field(
        default=None, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
    )
    local: bool = False
    image: str | None = None
    python: str = "python3"
    guard_image: str = "python:3.12-alpine"
    reach: Literal["port_forward", "direct"] = "port_forward"
    load_from: Literal["pod", "port_forward"] = "pod"
    load_image: str | None = None
    load_cpus: Positive = 4
    max_pods: Nodes = 256
    schedule_s: Seconds = 600.0
    gpu_resource: str = "nvidia.com/gpu"
    rdma_resource: str = "rdma/ib"
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: tuple[str, ...] = ()
    service_account: str | None = None
    priority_class: str | None = None
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    volumes: tuple[VolumeSpec, ...] = ()


class RoleNames(Model):
    """What the objects of one role are called.

    Attributes:
        name: Beginning of pod names, and name of the role's Service.
        labels: On pods, and what its Service selects.
    """

    name: str = Field(default="", pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$")
    labels: dict[str, str] = Field(default_factory=dict)


class KubernetesSpec(Model):
    """How a topology looks in a cluster.

    Attributes:
        front: How the router finds workers: ``per_pod`` (a URL for each),
            ``cluster_ip`` (one Service per role, the old recipe's form),
            ``discovery`` (it watches pods by label), ``gateway`` (an
            InferencePool and an endpoint picker stand in its place).
        multi_node: What a worker over several pods is: ``pods`` (made one by one), or
            a ``leader_worker_set``, which a controller of the cluster makes them of.
        roles: Role (``prefill``, ``decode``, ``aggregated``, ``router``) to names.
        caches: Name to path of folders that last as long as a pod.
        volumes: As in a cluster file, for this topology alone.
    """

    front: Literal["per_pod", "cluster_ip", "discovery", "gateway"] = "per_pod"
    multi_node: Literal["pods", "leader_worker_set"] = "pods"
    roles: dict[
        Literal["prefill", "decode", "aggregated", "router", "control"], RoleNames
    ] = Field(default_factory=dict)
    caches: dict[Name, str] = Field(default_factory=dict)
    volumes: tuple[VolumeSpec, ...] = ()
    gateway: dict[str, Any] = Field(default_factory=dict)

    def names(self, role: str) -> RoleNames:
        """Return what the objects of a role are called, empty where nothing is said."""
        return {str(k): v for k, v in self.roles.items()}.get(role, RoleNames())
