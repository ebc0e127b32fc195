"""Kubernetes as a backend: one pod per service, in a namespace of the run's own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pytest_pd.errors import ProvisionError
from pytest_pd.plan.model import DeploymentPlan
from pytest_pd.provision.base import Allocation, RunContext
from pytest_pd.provision.kubernetes.allocation import KubeAllocation
from pytest_pd.provision.kubernetes.client import KubeClient, kubectl_words
from pytest_pd.provision.kubernetes.names import Scope, scope_of, spec_of
from pytest_pd.provision.kubernetes.sweep import sweep
from pytest_pd.provision.rundir import RunDir
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.site_kubernetes import KubernetesSite
from pytest_pd.user import user_name

REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class KubernetesBackend:
    """Starts services as pods."""

    @property
    def name(self) -> str:
        return "kubernetes"

    def check(self, cluster: ClusterSpec, plans: Sequence[DeploymentPlan]) -> None:
        """Refuse what would never start: no kubectl, no secret, no image.

        Raises:
            BackendMissing: kubectl, or the local control plane, is not here.
            ProvisionError: says what is missing, and what to do.
        """
        site = site_of(cluster)
        kubectl_words(site)
        if site.local:
            from pytest_pd.provision.kube_local.assets import find_assets

            find_assets()
        for plan in plans:
            refuse_gateway(plan)
            refuse_missing_secrets(plan)

    @contextmanager
    def allocate(
        self, cluster: ClusterSpec, plan: DeploymentPlan, context: RunContext
    ) -> Iterator[Allocation]:
        """Yield a place in the cluster; when the block ends nothing of it is left."""
        RunDir(context.run_dir).create()
        with site_up(site_of(cluster), context) as site:
            client = KubeClient(site)
            try:
                client.open()
                scope = scope_for(site, context)
                check_access(client, scope)
                allocation = KubeAllocation(client, site, scope, plan, context)
                try:
                    allocation.open()
                    yield allocation
                finally:
                    allocation.close()
            finally:
                client.close()

    def clean(self, cluster: ClusterSpec, context: RunContext) -> None:
        """Delete everything that carries the run's labels."""
        site = site_of(cluster)
        if site.local:  # its control plane has ended with its run
            return
        client = KubeClient(site)
        try:
            client.open()
            sweep(client, scope_for(site, context))
        finally:
            client.close()


def site_of(cluster: ClusterSpec) -> KubernetesSite:
    """Return what the cluster file says about Kubernetes."""
    return cluster.kubernetes or KubernetesSite()


def scope_for(site: KubernetesSite, context: RunContext) -> Scope:
    """Return where a run's topology lies."""
    return scope_of(site, context.run_id, context.run_dir.name, user_name())


@contextmanager
def site_up(site: KubernetesSite, context: RunContext) -> Iterator[KubernetesSite]:
    """Yield the site; for a local one, with its control plane up."""
    if not site.local:
        yield site
        return
    from pytest_pd.provision.kube_local.control_plane import control_plane

    with control_plane() as plane:
        found = {
            "kubeconfig": str(plane.kubeconfig),
            "kubectl": plane.kubectl,
            "python": sys.executable,
        }
        yield site.model_copy(update={**found, "context": None})


def refuse_gateway(plan: DeploymentPlan) -> None:
    """Raise for a topology that controllers of others run: gateways, sets of pods."""
    spec = spec_of(plan)
    if spec.multi_node == "leader_worker_set":
        raise ProvisionError(
            f"{plan.name} is made of LeaderWorkerSets, which this harness only "
            "renders.",
            hint=f"pytest-pd plan {plan.name} --manifests DIR; or run it with "
            "kubernetes.multi_node: pods, which needs no controller",
        )
    if spec.front == "gateway":
        raise ProvisionError(
            f"{plan.name} stands behind a gateway, which this harness only renders.",
            hint=f"pytest-pd plan {plan.name} --manifests DIR; kubectl apply "
            "--server-side -f DIR; then pytest suites/ --attach URL",
        )


def refuse_missing_secrets(plan: DeploymentPlan) -> None:
    """Raise for the first secret that is not in the harness's environment."""
    for service in plan.services:
        for name in service.env_from_host:
            if name not in os.environ:
                raise ProvisionError(
                    f"{service.name} needs the variable {name!r}, which is not set "
                    "here.",
                    hint=f"export {name}=... before pytest; its value is written "
                    "nowhere but into a Secret of the cluster",
                )


def check_access(client: KubeClient, scope: Scope) -> None:
    """Ask the cluster whether we may do what we are about to do.

    Raises:
        ProvisionError: we may not, with the verb and the namespace.
    """
    wanted = [("create", "", "pods"), ("create", "coordination.k8s.io", "leases")]
    if scope.namespace_is_ours:
        wanted.insert(0, ("create", "", "namespaces"))
    for verb, group, resource in wanted:
        where = {"verb": verb, "group": group, "resource": resource}
        if resource != "namespaces":
            where["namespace"] = scope.namespace
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": where},
        }
        answer = client.request("POST", REVIEW, review)
        if not answer.get("status", {}).get("allowed"):
            raise ProvisionError(
                f"You may not {verb} {resource} in namespace {scope.namespace!r}.",
                hint="ask for the permission, or name a namespace of yours in the "
                "cluster file: kubernetes.namespace",
            )
