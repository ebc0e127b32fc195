"""What objects of a run are called, and the labels that prove whose they are. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_pd.plan.model import DeploymentPlan, Role, ServicePlan
from pytest_pd.spec.site_kubernetes import KubernetesSite, KubernetesSpec

RUN, TOPOLOGY = "pytest-pd/run", "pytest-pd/topology"
SERVICE, OWNER, PART = "pytest-pd/service", "pytest-pd/owner", "pytest-pd/part"
MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "pytest-pd"
SUBDOMAIN = "pd"
LONGEST = 63

CONTAINERS = {Role.ROUTER: "vllm-router", Role.CONTROL: "control"}
WORKER, LOAD = "vllm", "load"
OUR_CONTAINERS = frozenset({WORKER, LOAD, *CONTAINERS.values()})
"""A cluster may put containers of its own into a pod, before ours too."""

ROLE_LABEL, SERVING_LABEL = "llm-d.ai/role", "llm-d.ai/inferenceServing"

Object = dict[str, object]
"""A manifest: plain JSON values."""


@dataclass(frozen=True, slots=True)
class Scope:
    """One deployment of one run in one namespace.

    Attributes:
        topology: Name of the run's folder for it; unique in the run.
        owner: Who runs, for people who find the objects.
        namespace_is_ours: It was made for this deployment and goes with it.
        owner_uid: Of the object that owns all others; empty in a rendering.
    """

    run_id: str
    topology: str
    namespace: str
    owner: str = ""
    namespace_is_ours: bool = True
    owner_uid: str = ""

    @property
    def name(self) -> str:
        """Name of what there is once per deployment; short enough for any object."""
        return dns_label(f"pd-{self.run_id}-{self.topology}")

    def own(self, name: str) -> str:
        """Return a name that no other run has; it begins as a Service's must."""
        return dns_label(name if self.namespace_is_ours else f"pd-{self.run_id}-{name}")

    @property
    def labels(self) -> dict[str, str]:
        """On every object: whose it is."""
        return {
            MANAGED_BY: MANAGER,
            RUN: label_value(self.run_id),
            TOPOLOGY: label_value(self.topology),
            OWNER: label_value(self.owner or "unknown"),
        }

    @property
    def selector(self) -> str:
        """What finds every object of the deployment, and no other."""
        chosen = {name: self.labels[name] for name in (RUN, TOPOLOGY)}
        return ",".join(f"{name}={value}" for name, value in chosen.items())

    def metadata(self, name: str, **more: object) -> Object:
        """Return the metadata of an object of the deployment."""
        found: Object = {
            "name": name,
            "namespace": self.namespace,
            "labels": self.labels,
            **more,
        }
        if self.owner_uid:
            found["ownerReferences"] = [
                {
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "name": self.name,
                    "uid": self.owner_uid,
                }
            ]
        return found


def scope_of(
    site: KubernetesSite, run_id: str, topology: str, owner: str = ""
) -> Scope:
    """Return where a deployment lies: the cluster file's namespace, or its own."""
    own = dns_label(f"pytest-pd-{run_id}-{topology}")
    return Scope(run_id, topology, site.namespace or own, owner, site.namespace is None)


def dns_label(text: str) -> str:
    """Return a DNS label that is as much like `text` as one can be."""
    word = re.sub(r"[^a-z0-9-]+", "-", text.lower())[:LONGEST]
    return word.strip("-") or "x"


def label_value(text: str) -> str:
    """Return a label's value that is as much like `text` as one can be."""
    word = re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:LONGEST]
    return word.strip("-_.")


def spec_of(plan: DeploymentPlan) -> KubernetesSpec:
    """Return what the plan's topology says about Kubernetes."""
    return KubernetesSpec.model_validate(dict(plan.kubernetes))


def pod_name(spec: KubernetesSpec, scope: Scope, service: ServicePlan) -> str:
    """Return the name of a service's pod, which is its host name as well.

    In a namespace that others use, the run's id stands before it.
    """
    base = spec.names(service.role).name
    own = service.name.removeprefix(service.role).lstrip("-")
    name = "-".join(filter(None, (base, own))) if base else service.name
    return scope.own(name)


def subdomain(scope: Scope) -> str:
    """Return the name of the headless Service that gives pods their names."""
    return SUBDOMAIN if scope.namespace_is_ours else scope.name


def address(scope: Scope, pod: str) -> str:
    """Return the name under which other pods find a pod, ready or not."""
    return f"{pod}.{subdomain(scope)}.{scope.namespace}.svc"


def addresses(plan: DeploymentPlan, scope: Scope) -> Mapping[str, str]:
    """Return planned node name to the address of the pod that it is."""
    spec = spec_of(plan)
    found: dict[str, str] = {}
    for service in plan.services:
        pod = pod_name(spec, scope, service)
        found.setdefault(service.node, address(scope, pod))
        if spec.multi_node == "leader_worker_set" and is_part(plan, service):
            group = pod.rpartition("-")[0]  # names of a set's pods are below its own
            found[service.node] = f"{pod}.{group}.{scope.namespace}.svc"
    return found


def is_part(plan: DeploymentPlan, service: ServicePlan) -> bool:
    """Tell whether a service is one of several that make up a worker."""
    head = service.name.rpartition("-")[0]
    return any(
        other is not service
        and (other.role, other.replica) == (service.role, service.replica)
        and other.name.rpartition("-")[0] == head
        for other in plan.services
    )


def role_labels(spec: KubernetesSpec, service: ServicePlan, model: str) -> Object:
    """Return the labels by which Services and gateways find the pods of a role."""
    found: Object = {"llm-d.ai/model": label_value(model.rpartition("/")[2])}
    if service.role not in ("router", "control"):
        found |= {ROLE_LABEL: str(service.role), SERVING_LABEL: "true"}
    return found | dict(spec.names(service.role).labels)
