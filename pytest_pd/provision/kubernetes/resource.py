"""Where objects lie in the API. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PLURALS = {
    "Namespace": "namespaces",
    "Lease": "leases",
    "Pod": "pods",
    "Service": "services",
    "Secret": "secrets",
    "ConfigMap": "configmaps",
    "ServiceAccount": "serviceaccounts",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "Deployment": "deployments",
    "InferencePool": "inferencepools",
    "HTTPRoute": "httproutes",
    "LeaderWorkerSet": "leaderworkersets",
}
"""Every kind that is ever applied, with its name in paths."""

API_OF_KIND = {
    "Lease": "coordination.k8s.io/v1",
    "Role": "rbac.authorization.k8s.io/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1",
}
"""Kinds that a deployment has besides those of the core API."""

OURS = ("Pod", "Service", "Secret", "ConfigMap", "ServiceAccount", *API_OF_KIND)
"""Kinds that are looked through to see whether anything is left."""


def collection(api: str, kind: str, namespace: str = "") -> str:
    """Return the path of all objects of a kind."""
    root = f"/api/{api}" if "/" not in api else f"/apis/{api}"
    inside = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{inside}/{PLURALS[kind]}"


def path_of(manifest: Mapping[str, Any]) -> str:
    """Return the path of an object from its manifest."""
    meta = manifest["metadata"]
    below = collection(
        manifest["apiVersion"], manifest["kind"], meta.get("namespace", "")
    )
    return f"{below}/{meta['name']}"


def path_in(namespace: str, kind: str, name: str = "") -> str:
    """Return the path of an object, or of all, of a kind in a namespace."""
    below = collection(API_OF_KIND.get(kind, "v1"), kind, namespace)
    return f"{below}/{name}" if name else below
