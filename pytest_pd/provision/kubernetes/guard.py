"""The lease in the cluster and the pod that watches it. Pure.

A Lease object owns every other object of a deployment: deleting it deletes them all.
The guard deletes it, and the namespace if it is ours, once nobody renews it.
"""

from __future__ import annotations

from pathlib import Path

from pytest_pd.provision.kubernetes import cleaner
from pytest_pd.provision.kubernetes.names import PART, Object, Scope
from pytest_pd.spec.site_kubernetes import KubernetesSite

FOLDER = "/run/pytest-pd-guard"
PROGRAM = "cleaner.py"


def lease(scope: Scope, ttl_s: float, now: str) -> Object:
    """Return the object that owns all others.

    Args:
        now: Time as the API writes it: ``2026-01-01T00:00:00.000000Z``.
    """
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": scope.metadata(scope.name),
        "spec": {
            "holderIdentity": scope.run_id,
            "leaseDurationSeconds": max(1, round(ttl_s)),
            "acquireTime": now,
            "renewTime": now,
        },
    }


def guard(scope: Scope, site: KubernetesSite, ttl_s: float) -> list[Object]:
    """Return the guard: its program, what it may do, and its pod."""
    name = f"{scope.name}-guard"
    return [*permissions(scope, name), program(scope, name), pod(scope, site, ttl_s)]


def permissions(scope: Scope, name: str) -> list[Object]:
    """Return account and role: read and delete this lease, delete our namespace."""
    rules: list[Object] = [
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": [scope.name],
            "verbs": ["get", "delete"],
        }
    ]
    if scope.namespace_is_ours:
        rules.append(
            {
                "apiGroups": [""],
                "resources": ["namespaces"],
                "resourceNames": [scope.namespace],
                "verbs": ["delete"],
            }
        )
    return account_with(scope, name, rules)


def account_with(scope: Scope, name: str, rules: list[Object]) -> list[Object]:
    """Return a service account, its role and the binding of the two."""
    group = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": name, "namespace": scope.namespace}
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": scope.metadata(name),
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "Role",
            "metadata": scope.metadata(name),
            "rules": rules,
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": scope.metadata(name),
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [subject],
        },
    ]


def program(scope: Scope, name: str) -> Object:
    """Return the guard's program as a ConfigMap."""
    source = Path(str(cleaner.__file__)).read_text(encoding="utf-8")
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": scope.metadata(name),
        "data": {PROGRAM: source},
    }


def pod(scope: Scope, site: KubernetesSite, ttl_s: float) -> Object:
    """Return the guard's pod; it is restarted, for it is the last line."""
    name = f"{scope.name}-guard"
    meta = scope.metadata(name)
    meta["labels"] = {**site.labels, **scope.labels, PART: "guard"}
    ours = scope.namespace if scope.namespace_is_ours else ""
    words = ["python3", "-S", "-E", f"{FOLDER}/{PROGRAM}"]
    words += [scope.namespace, scope.name, f"{ttl_s:g}", ours]
    small = {"cpu": "50m", "memory": "64Mi"}
    body: Object = {
        "serviceAccountName": name,
        "restartPolicy": "Always",
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 1,
        "containers": [
            {
                "name": "guard",
                "image": site.guard_image,
                "command": words,
                "resources": {"limits": small, "requests": dict(small)},
                "volumeMounts": [{"name": "program", "mountPath": FOLDER}],
            }
        ],
        "volumes": [{"name": "program", "configMap": {"name": name}}],
    }
    if site.tolerations:
        body["tolerations"] = list(site.tolerations)
    if site.image_pull_secrets:
        body["imagePullSecrets"] = [{"name": n} for n in site.image_pull_secrets]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": body}
