"""What would be applied, as files for a person to read and to apply by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from pytest_pd.errors import SpecError
from pytest_pd.plan.model import UNKNOWN_SITE, DeploymentPlan, SiteFacts
from pytest_pd.provision.kubernetes.manifest import manifests
from pytest_pd.provision.kubernetes.names import Object, addresses, scope_of
from pytest_pd.provision.kubernetes.pod import RUN_DIR
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.site_kubernetes import KubernetesSite

RUN_ID = "run"
"""Stands for the id of the run, which is drawn when it starts."""


MakePlan = Callable[[SiteFacts], DeploymentPlan]


def write_manifests(folder: Path, make_plan: MakePlan, cluster: ClusterSpec) -> None:
    """Write one JSON file per object below ``folder/<topology>``, numbered in order.

    Args:
        make_plan: The plan for given facts: names of pods are addresses in it.

    Raises:
        SpecError: the plan is not for Kubernetes.
    """
    plan = make_plan(UNKNOWN_SITE)
    below = folder / plan.name
    below.mkdir(parents=True, exist_ok=True)
    for number, each in enumerate(rendered(make_plan, cluster)):
        path = below / f"{number:02d}-{file_stem(each)}.json"
        path.write_text(json.dumps(each, indent=2) + "\n", encoding="utf-8")


def rendered(make_plan: MakePlan, cluster: ClusterSpec) -> list[Object]:
    """Return every object of a plan.

    Raises:
        SpecError: the plan is not for Kubernetes.
    """
    plan = make_plan(UNKNOWN_SITE)
    if cluster.backend != "kubernetes":
        raise SpecError(
            f"{plan.name} is planned for {cluster.backend}, which has no manifests.",
            hint="--cluster h100_kubernetes, or a cluster file with "
            "backend: kubernetes",
        )
    site = cluster.kubernetes or KubernetesSite()
    scope = scope_of(site, RUN_ID, plan.name)
    facts = SiteFacts(
        run_dir=RUN_DIR,
        run_id=RUN_ID,
        addresses=addresses(plan, scope),
        python=site.python,
    )
    return manifests(make_plan(facts), site, scope, cluster.lease_ttl_s)


def file_stem(each: Object) -> str:
    """Return ``pod-vllm-router`` for an object."""
    meta = each["metadata"]
    assert isinstance(meta, dict)
    return f"{str(each['kind']).lower()}-{meta['name']}"
