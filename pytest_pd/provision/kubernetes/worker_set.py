"""Workers over several pods as LeaderWorkerSets, for clusters that have them. Pure.

Source: ``leaderworkerset.x-k8s.io/v1`` (``leaderWorkerTemplate`` with ``size``, a
template for the leader and one for all workers); its controller makes the pods
``<set>-0`` and ``<set>-0-<index>``, a Service of the set's name for their names, and
gives them ``LWS_LEADER_ADDRESS`` and ``LWS_WORKER_INDEX``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_pd.errors import SpecError
from pytest_pd.plan.model import DeploymentPlan, Role, ServicePlan
from pytest_pd.provision.kubernetes.names import SERVICE, Object, pod_name
from pytest_pd.provision.kubernetes.pod import Setting, pod

LEADER, INDEX = "$(LWS_LEADER_ADDRESS)", "$(LWS_WORKER_INDEX)"
RANK_FLAG = "--node-rank"
OF_THE_SET = ("hostname", "subdomain", "restartPolicy")
"""What the set decides for its pods."""


def groups(plan: DeploymentPlan) -> Mapping[tuple[Role, int], Sequence[ServicePlan]]:
    """Return the services of every worker that is more than one, leader first."""
    found: dict[tuple[Role, int], list[ServicePlan]] = {}
    for service in plan.services:
        found.setdefault((service.role, service.replica), []).append(service)
    workers = (Role.PREFILL, Role.DECODE, Role.AGGREGATED)
    return {k: v for k, v in found.items() if len(v) > 1 and k[0] in workers}


def worker_set(setting: Setting, services: Sequence[ServicePlan]) -> Object:
    """Return one worker as a LeaderWorkerSet.

    Raises:
        SpecError: its pods differ in more than their rank.
    """
    leader, *rest = services
    name = pod_name(setting.spec, setting.scope, leader).removesuffix("-0")
    templates = [template(setting, leader, each, i + 1) for i, each in enumerate(rest)]
    if any(each != templates[0] for each in templates):
        raise SpecError(
            f"The pods of {leader.name} differ in more than their rank, and a "
            "LeaderWorkerSet has one template for all of them.",
            hint="kubernetes.multi_node: pods",
        )
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": setting.scope.metadata(name),
        "spec": {
            "replicas": 1,
            "startupPolicy": "LeaderCreated",
            "leaderWorkerTemplate": {
                "size": len(services),
                "restartPolicy": "None",
                "leaderTemplate": template(setting, leader, leader, 0),
                "workerTemplate": templates[0],
            },
        },
    }


def template(
    setting: Setting, leader: ServicePlan, service: ServicePlan, index: int
) -> dict[str, Any]:
    """Return a pod as a template: the leader's address and the rank by variables."""
    text = json.dumps(pod(setting, service))
    if index:
        text = text.replace(setting.addresses[leader.node], LEADER)
        text = text.replace(f'"{RANK_FLAG}", "{index}"', f'"{RANK_FLAG}", "{INDEX}"')
        mark = f"{setting.scope.topology}/{service.name}"
        text = text.replace(mark, f"{mark.removesuffix(str(index))}{INDEX}")
    made: dict[str, Any] = json.loads(text)
    labels = {k: v for k, v in made["metadata"]["labels"].items() if k != SERVICE}
    spec = {k: v for k, v in made["spec"].items() if k not in OF_THE_SET}
    return {"metadata": {"labels": labels}, "spec": spec}
