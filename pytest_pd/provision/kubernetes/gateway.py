"""llm-d's gateway before the same pods: an InferencePool and its endpoint picker. Pure.

Source: gateway-api-inference-extension ``inference.networking.k8s.io/v1`` InferencePool
(``selector.matchLabels``, ``targetPorts``, ``endpointPickerRef``), and the plug-in
configuration ``inference.networking.x-k8s.io/v1alpha1`` of llm-d-inference-scheduler
with profiles for prefill and decode and scorers for queue and prefix.
"""

from __future__ import annotations

import json

from pytest_pd.plan.model import Role
from pytest_pd.provision.kubernetes.guard import account_with
from pytest_pd.provision.kubernetes.names import (
    ROLE_LABEL,
    RUN,
    SERVING_LABEL,
    TOPOLOGY,
    Object,
)
from pytest_pd.provision.kubernetes.pod import Setting

IMAGE = "ghcr.io/llm-d/llm-d-inference-scheduler:v0.4.0"
GRPC_PORT, HEALTH_PORT, METRICS_PORT = 9002, 9003, 9090
QUEUE_WEIGHT, PREFIX_WEIGHT = 1, 2
GROUP = "inference.networking.k8s.io"


def gateway(setting: Setting) -> list[Object]:
    """Return pool, route, picker and what the picker may read."""
    name = picker_name(setting)
    return [
        pool(setting, name),
        route(setting, name),
        *account_with(setting.scope, name, rules()),
        configuration(setting, name),
        picker_service(setting, name),
        picker(setting, name),
    ]


def picker_name(setting: Setting) -> str:
    """Return the name of pool and picker."""
    base = setting.spec.names("router").name or "pd"
    own = f"{base}-epp"
    scope = setting.scope
    return scope.own(own)


def selector(setting: Setting) -> dict[str, str]:
    """Return the labels of every worker of the deployment."""
    labels = setting.scope.labels
    return {RUN: labels[RUN], TOPOLOGY: labels[TOPOLOGY], SERVING_LABEL: "true"}


def pool(setting: Setting, name: str) -> Object:
    """Return the InferencePool over the workers."""
    workers = [s for s in setting.plan.services if s.role is Role.DECODE]
    port = workers[0].ports["http"]
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "InferencePool",
        "metadata": setting.scope.metadata(name),
        "spec": {
            "selector": {"matchLabels": selector(setting)},
            "targetPorts": [{"number": port}],
            "endpointPickerRef": {
                "name": name,
                "port": {"number": GRPC_PORT},
                "failureMode": "FailClose",
            },
        },
    }


def route(setting: Setting, name: str) -> Object:
    """Return the HTTPRoute from the site's Gateway to the pool."""
    parent = setting.spec.gateway.get("name", "inference-gateway")
    backend = {"group": GROUP, "kind": "InferencePool", "name": name}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": setting.scope.metadata(name),
        "spec": {
            "parentRefs": [{"name": parent}],
            "rules": [{"backendRefs": [backend]}],
        },
    }


def rules() -> list[Object]:
    """Return what the picker reads: pods, pools and objectives."""
    verbs = ["get", "list", "watch"]
    return [
        {"apiGroups": [""], "resources": ["pods"], "verbs": verbs},
        {
            "apiGroups": [GROUP, "inference.networking.x-k8s.io"],
            "resources": ["inferencepools", "inferenceobjectives"],
            "verbs": verbs,
        },
    ]


def plugins(setting: Setting) -> Object:
    """Return the picker's configuration: queue and prefix scorers in both phases."""

    def scored(role: str) -> Object:
        return {
            "name": role,
            "plugins": [
                {"pluginRef": f"{role}-filter"},
                {"pluginRef": "queue-scorer", "weight": QUEUE_WEIGHT},
                {"pluginRef": "prefix-cache-scorer", "weight": PREFIX_WEIGHT},
                {"pluginRef": "max-score-picker"},
            ],
        }

    return {
        "apiVersion": "inference.networking.x-k8s.io/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": [
            *[by_role(role) for role in ("prefill", "decode")],
            {"type": "queue-scorer"},
            {"type": "prefix-cache-scorer"},
            {"type": "max-score-picker"},
            {"type": "pd-profile-handler"},
        ],
        "schedulingProfiles": [scored("prefill"), scored("decode")],
    }


def by_role(role: str) -> Object:
    """Return the filter that leaves the workers of one role."""
    parameters = {"label": ROLE_LABEL, "validValues": [role], "allowsNoLabel": False}
    return {"type": "by-label", "name": f"{role}-filter", "parameters": parameters}


def configuration(setting: Setting, name: str) -> Object:
    """Return the picker's configuration as a ConfigMap; JSON is YAML too."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": setting.scope.metadata(name),
        "data": {"plugins.yaml": json.dumps(plugins(setting), indent=2)},
    }


def picker_service(setting: Setting, name: str) -> Object:
    """Return the Service that the gateway asks."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": setting.scope.metadata(name),
        "spec": {
            "selector": {"app": name},
            "ports": [
                {
                    "name": "grpc",
                    "port": GRPC_PORT,
                    "targetPort": GRPC_PORT,
                    "protocol": "TCP",
                    "appProtocol": "http2",
                }
            ],
        },
    }


def picker(setting: Setting, name: str) -> Object:
    """Return the endpoint picker as a Deployment of one."""
    labels = {**setting.scope.labels, "app": name}
    probe = {"grpc": {"port": HEALTH_PORT, "service": "inference-extension"}}
    words = ["--pool-name", name, "--pool-namespace", setting.scope.namespace]
    words += ["--config-file", "/config/plugins.yaml"]
    words += ["--grpc-port", str(GRPC_PORT), "--grpc-health-port", str(HEALTH_PORT)]
    container: Object = {
        "name": "epp",
        "image": setting.spec.gateway.get("image", IMAGE),
        "args": words,
        "ports": [
            {"name": "grpc", "containerPort": GRPC_PORT, "protocol": "TCP"},
            {"name": "health", "containerPort": HEALTH_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
        ],
        "readinessProbe": probe,
        "volumeMounts": [{"name": "config", "mountPath": "/config"}],
    }
    spec: Object = {
        "serviceAccountName": name,
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": name}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": setting.scope.metadata(name),
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }
