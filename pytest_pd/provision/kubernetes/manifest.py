"""A whole plan as manifests: what is applied, in its order. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_pd.plan.model import DeploymentPlan, Role, ServicePlan
from pytest_pd.provision.kubernetes.gateway import gateway
from pytest_pd.provision.kubernetes.guard import account_with, guard, lease
from pytest_pd.provision.kubernetes.load_pod import load_objects
from pytest_pd.provision.kubernetes.names import (
    RUN,
    TOPOLOGY,
    Object,
    Scope,
    addresses,
    pod_name,
    role_labels,
    subdomain,
)
from pytest_pd.provision.kubernetes.pod import (
    Setting,
    file_key,
    pod,
    port_name,
    secret_name,
)
from pytest_pd.provision.kubernetes.worker_set import groups, worker_set
from pytest_pd.spec.site_kubernetes import KubernetesSite

UNSET = "1970-01-01T00:00:00.000000Z"
FROM_HOST = "pytest-pd/from-environment"


def setting_of(plan: DeploymentPlan, site: KubernetesSite, scope: Scope) -> Setting:
    """Return what every pod of the plan is rendered with."""
    return Setting(plan, site, scope, addresses(plan, scope))


def manifests(
    plan: DeploymentPlan, site: KubernetesSite, scope: Scope, ttl_s: float
) -> list[Object]:
    """Return every object of a deployment in the order in which it is applied.

    Secrets have no values in it; those come from the harness's environment.
    """
    setting = setting_of(plan, site, scope)
    found = [namespace(scope)] if scope.namespace_is_ours else []
    found += [lease(scope, ttl_s, UNSET), *guard(scope, site, ttl_s)]
    found += shared(setting)
    if names := sorted({n for s in plan.services for n in s.env_from_host}):
        found.append(secret(scope, dict.fromkeys(names, "")))
    sets = groups(plan) if setting.spec.multi_node == "leader_worker_set" else {}
    inside = {service.name for each in sets.values() for service in each}
    found += [worker_set(setting, each) for each in sets.values()]
    for service in plan.services:
        behind = service.role is Role.ROUTER and setting.spec.front == "gateway"
        if service.name not in inside and not behind:
            found += of_service(setting, service)
    return [*found, *load_objects(setting)]


def namespace(scope: Scope) -> Object:
    """Return the namespace of a deployment."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": scope.namespace, "labels": scope.labels},
    }


def shared(setting: Setting) -> list[Object]:
    """Return what there is once: names for pods, Services of roles, permissions."""
    found = [names_service(setting.scope), *role_services(setting)]
    if setting.spec.front == "discovery":
        rules: list[Object] = [
            {
                "apiGroups": [""],
                "resources": ["pods"],
                "verbs": ["get", "list", "watch"],
            }
        ]
        found += account_with(setting.scope, f"{setting.scope.name}-router", rules)
    if setting.spec.front == "gateway":
        found += gateway(setting)
    return found


def of_service(setting: Setting, service: ServicePlan) -> list[Object]:
    """Return a service's files and its pod."""
    found: list[Object] = []
    if service.files:
        name = pod_name(setting.spec, setting.scope, service)
        data = {file_key(path): text for path, text in service.files.items()}
        found.append(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": setting.scope.metadata(name),
                "data": data,
            }
        )
    return [*found, pod(setting, service)]


def names_service(scope: Scope) -> Object:
    """Return the headless Service that lets pods find each other, ready or not."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": scope.metadata(subdomain(scope)),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {name: scope.labels[name] for name in (RUN, TOPOLOGY)},
        },
    }


def role_services(setting: Setting) -> Iterator[Object]:
    """Yield a Service before the pods of each role that has a name."""
    for role in Role:
        ours = [s for s in setting.plan.services if s.role is role and s.ports]
        name = setting.spec.names(role).name
        if not ours or not name:
            continue
        head, scope = ours[0], setting.scope
        labels = role_labels(setting.spec, head, setting.plan.served_model)
        selector = {name: scope.labels[name] for name in (RUN, TOPOLOGY)} | labels
        yield {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": scope.metadata(scope.own(name)),
            "spec": {"selector": selector, "ports": list(service_ports(head))},
        }


def service_ports(service: ServicePlan) -> Iterator[Object]:
    """Yield ports of a Service; servers of 1.20 want the protocol written out."""
    for purpose, port in service.ports.items():
        name = port_name(purpose)
        yield {"name": name, "port": port, "targetPort": port, "protocol": "TCP"}


def secret(scope: Scope, values: dict[str, str]) -> Object:
    """Return the Secret with variables of the harness's environment."""
    name = secret_name(scope)
    annotations = {FROM_HOST: ",".join(sorted(values))}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": scope.metadata(name, annotations=annotations),
        "type": "Opaque",
        "stringData": {key: value for key, value in values.items() if value},
    }
