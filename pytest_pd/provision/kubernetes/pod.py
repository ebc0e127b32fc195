"""One service to one pod. Pure.

A pod and not a Deployment: a service that dies stays dead, with its exit code, and
whoever measures it learns of it; a controller would put another in its place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pytest_pd.errors import ProvisionError
from pytest_pd.plan.model import DeploymentPlan, Role, ServicePlan
from pytest_pd.provision.kubernetes.names import (
    CONTAINERS,
    SERVICE,
    WORKER,
    Object,
    Scope,
    label_value,
    pod_name,
    role_labels,
    spec_of,
    subdomain,
)
from pytest_pd.provision.launcher import MARK
from pytest_pd.spec.site_kubernetes import KubernetesSite, KubernetesSpec, VolumeSpec

RUN_DIR = "/run/pytest-pd"
"""Run directory as services see it: a folder of the pod."""

POD_IP, NAMESPACE = "$(POD_IP)", "$(POD_NAMESPACE)"
"""What the kubelet replaces in words and variables by the pod's own values."""

SECRET = "environment"
PROBE_PERIOD_S, PROBE_FAILURES = 1, 3


@dataclass(frozen=True, slots=True)
class Setting:
    """What every pod of one deployment is rendered with.

    Attributes:
        addresses: Planned node name to the name of its pod among the others.
    """

    plan: DeploymentPlan
    site: KubernetesSite
    scope: Scope
    addresses: Mapping[str, str]
    spec: KubernetesSpec = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "spec", spec_of(self.plan))

    @property
    def volumes(self) -> tuple[VolumeSpec, ...]:
        return (*self.site.volumes, *self.spec.volumes)


def container_name(service: ServicePlan) -> str:
    """Return the name of the service's container in its pod."""
    return CONTAINERS.get(service.role, WORKER)


def pod(setting: Setting, service: ServicePlan) -> Object:
    """Return the manifest of a service's pod.

    Raises:
        ProvisionError: nobody says which image it runs in.
    """
    scope, site = setting.scope, setting.site
    name = pod_name(setting.spec, scope, service)
    notes = {"annotations": dict(site.annotations)} if site.annotations else {}
    meta = scope.metadata(name, **notes)
    meta["labels"] = {
        **site.labels,
        **scope.labels,
        SERVICE: label_value(service.name),
        **role_labels(setting.spec, service, setting.plan.served_model),
    }
    body: Object = {
        "restartPolicy": "Never",
        "hostname": name,
        "subdomain": subdomain(scope),
        "enableServiceLinks": False,
        "automountServiceAccountToken": watches_pods(setting, service),
        "shareProcessNamespace": True,
        "terminationGracePeriodSeconds": math.ceil(service.stop_grace_s),
        "containers": [container(setting, service)],
        "volumes": list(volumes(setting, service)),
        **placed(setting, service),
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": body}


def watches_pods(setting: Setting, service: ServicePlan) -> bool:
    """Whether a service looks for the others in the API."""
    return setting.spec.front == "discovery" and service.role is Role.ROUTER


def placed(setting: Setting, service: ServicePlan) -> Object:
    """Return what the site wants for its pods; only what is said."""
    site = setting.site
    account = site.service_account
    if watches_pods(setting, service):
        account = setting.scope.name + "-router"
    found: Object = {
        "nodeSelector": dict(site.node_selector),
        "tolerations": list(site.tolerations),
        "priorityClassName": site.priority_class,
        "serviceAccountName": account,
        "imagePullSecrets": [{"name": name} for name in site.image_pull_secrets],
    }
    return {name: value for name, value in found.items() if value}


def image_of(setting: Setting, service: ServicePlan) -> str:
    """Return the image that a service runs in.

    Raises:
        ProvisionError: neither the topology nor the cluster names one.
    """
    if image := service.image or setting.site.image:
        return image
    raise ProvisionError(
        f"{service.name} has no image, and a pod needs one.",
        hint="give engine.image (router.image) in the topology, "
        "or kubernetes.image in the cluster file",
    )


def container(setting: Setting, service: ServicePlan) -> Object:
    """Return the one container of a service's pod."""
    found: Object = {
        "name": container_name(service),
        "image": image_of(setting, service),
        "command": [word(setting, service, each) for each in service.argv],
        "env": list(environment(setting, service)),
        "ports": [
            {"name": port_name(purpose), "containerPort": port, "protocol": "TCP"}
            for purpose, port in service.ports.items()
        ],
        "resources": resources(setting, service),
        "volumeMounts": list(mounts(setting, service)),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if policy := setting.site.image_pull_policy:
        found["imagePullPolicy"] = policy
    if probe := readiness(setting, service):
        found["readinessProbe"] = probe
    return {name: value for name, value in found.items() if value}


def port_name(purpose: str) -> str:
    """Return a purpose as Kubernetes writes names of ports: 15 characters."""
    return purpose.replace("_", "-")[:15]


def word(setting: Setting, service: ServicePlan, text: str) -> str:
    """Return a word of the plan so that the kubelet hands it over unchanged.

    The pod's own name becomes its IP: one cannot listen on a name that the
    cluster's DNS may not know yet.
    """
    own = setting.addresses.get(service.node)
    kept = text.replace("$", "$$").replace("$" + NAMESPACE, NAMESPACE)
    if not own or own not in kept:
        return kept
    return re.sub(rf"(?<![\w.-]){re.escape(own)}(?![\w-])", POD_IP, kept)


def environment(setting: Setting, service: ServicePlan) -> Iterator[Object]:
    """Yield a container's variables; secrets by reference."""
    for name, path in (("POD_IP", "podIP"), ("POD_NAMESPACE", "namespace")):
        part = "status" if name == "POD_IP" else "metadata"
        yield {
            "name": name,
            "valueFrom": {"fieldRef": {"fieldPath": f"{part}.{path}"}},
        }
    scope = setting.scope
    mark = f"{scope.run_id}/{scope.topology}/{service.name}"
    yield {"name": MARK, "value": word(setting, service, mark)}
    for name, value in service.env.items():
        yield {"name": name, "value": word(setting, service, value)}
    for name in service.env_from_host:
        ref = {"name": secret_name(scope), "key": name}
        yield {"name": name, "valueFrom": {"secretKeyRef": ref}}


def secret_name(scope: Scope) -> str:
    """Return the name of the Secret that holds a deployment's variables."""
    return SECRET if scope.namespace_is_ours else scope.name


def resources(setting: Setting, service: ServicePlan) -> Object:
    """Return limits, and requests that equal them; a rehearsal asks for nothing."""
    if setting.plan.rehearsal:
        return {}
    wanted = {
        "cpu": str(service.cpus) if service.cpus else None,
        "memory": gibibytes(service.memory_gib) if service.memory_gib else None,
        setting.site.gpu_resource: str(len(service.gpu_ids)) or None,
        setting.site.rdma_resource: str(service.rdma_devices or 0),
    }
    found = {name: value for name, value in wanted.items() if value not in (None, "0")}
    return {"limits": found, "requests": dict(found)} if found else {}


def gibibytes(size: float) -> str:
    """Return a size as Kubernetes writes it."""
    return f"{size:g}Gi" if float(size).is_integer() else f"{math.ceil(size * 1024)}Mi"


def readiness(setting: Setting, service: ServicePlan) -> Object:
    """Return the kubelet's question: what the harness asks, from inside."""
    ready = service.ready
    timing = {"periodSeconds": PROBE_PERIOD_S, "failureThreshold": PROBE_FAILURES}
    if ready.kind == "http":
        parts = urlsplit(ready.target)
        get = {"path": parts.path or "/", "port": parts.port}
        return {"httpGet": get, "timeoutSeconds": 2, **timing}
    if ready.kind == "tcp":
        port = int(ready.target.rpartition(":")[2])
        return {"tcpSocket": {"port": port}, **timing}
    return {}


def file_key(path: str) -> str:
    """Return a path as the key of a ConfigMap."""
    return path.strip("/").replace("/", ".")


def volumes(setting: Setting, service: ServicePlan) -> Iterator[Object]:
    """Yield the pod's volumes."""
    yield {"name": "run", "emptyDir": {}}
    if service.shm_gib:
        size = gibibytes(service.shm_gib)
        yield {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}}
    for name in setting.spec.caches:
        yield {"name": name, "emptyDir": {}}
    for volume in setting.volumes:
        yield {"name": volume.name, **volume.source}
    if service.files:
        name = pod_name(setting.spec, setting.scope, service)
        yield {"name": "files", "configMap": {"name": name}}


def mounts(setting: Setting, service: ServicePlan) -> Iterator[Object]:
    """Yield where the container sees its volumes."""
    yield {"name": "run", "mountPath": RUN_DIR}
    if service.shm_gib:
        yield {"name": "shm", "mountPath": "/dev/shm"}
    for name, path in setting.spec.caches.items():
        yield {"name": name, "mountPath": path}
    for volume in setting.volumes:
        yield {
            "name": volume.name,
            "mountPath": volume.mount_path,
            **({"readOnly": True} if volume.read_only else {}),
        }
    for path in service.files:
        yield {
            "name": "files",
            "mountPath": f"{RUN_DIR}/{path}",
            "subPath": file_key(path),
        }
