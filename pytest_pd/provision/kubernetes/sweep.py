"""Remove everything of one deployment from a cluster, and see that it is gone."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from pytest_pd.errors import ProvisionError
from pytest_pd.provision.kubernetes.client import NOT_FOUND, ApiError, KubeClient
from pytest_pd.provision.kubernetes.names import Scope
from pytest_pd.provision.kubernetes.resource import OURS, path_in

GONE_S = 120.0
LOOK_S = 0.1
GRACE_S = 1


def sweep(client: KubeClient, scope: Scope) -> None:
    """Delete by label; return when no object of the deployment is left.

    Raises:
        ProvisionError: something is still there, with its name and finalizers.
    """
    delete_pods(client, scope)
    with suppress(ApiError):
        client.delete(path_in(scope.namespace, "Lease", scope.name))
    if scope.namespace_is_ours:
        client.delete(f"/api/v1/namespaces/{scope.namespace}")
    else:
        for kind in OURS:
            delete_kind(client, scope, kind)
    end_s = time.monotonic() + GONE_S
    while left := what_is_left(client, scope):
        if time.monotonic() > end_s:
            raise ProvisionError(
                f"{len(left)} object(s) of run {scope.run_id} are still in namespace "
                f"{scope.namespace!r}: {', '.join(left[:8])}.",
                hint=f"kubectl get all -n {scope.namespace} -l {scope.selector}; "
                "finalizers hold them back",
            )
        time.sleep(LOOK_S)


def delete_pods(client: KubeClient, scope: Scope) -> None:
    """Delete pods first: what they do ends at once."""
    query = {"labelSelector": scope.selector}
    with suppress(ApiError):
        client.request(
            "DELETE",
            path_in(scope.namespace, "Pod"),
            {"gracePeriodSeconds": GRACE_S},
            query=query,
        )


def delete_kind(client: KubeClient, scope: Scope, kind: str) -> None:
    """Delete every object of one kind; Services know no deletion of many."""
    for name in names_of(client, scope, kind):
        client.delete(path_in(scope.namespace, kind, name))


def names_of(client: KubeClient, scope: Scope, kind: str) -> list[str]:
    """Return the objects of one kind that carry the deployment's labels."""
    query = {"labelSelector": scope.selector}
    answer = client.request("GET", path_in(scope.namespace, kind), query=query)
    return [each["metadata"]["name"] for each in answer.get("items", [])]


def what_is_left(client: KubeClient, scope: Scope) -> list[str]:
    """Return ``Pod prefill-0`` for everything that is there; the namespace too."""
    if scope.namespace_is_ours:
        try:
            found = client.request("GET", f"/api/v1/namespaces/{scope.namespace}")
        except ApiError as error:
            if error.status == NOT_FOUND:
                return []
            raise
        return [f"Namespace {scope.namespace}", *holding(found)]
    return [f"{k} {name}" for k in OURS for name in names_of(client, scope, k)]


def holding(namespace: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the cluster says still holds a namespace back: finalizers."""
    for each in namespace.get("status", {}).get("conditions", ()):
        if each.get("status") == "True":
            yield str(each.get("message", "")).rstrip(".")
