"""``plan.lock.yaml``: a plan with the specifications it was made from.

It lies in every run directory, reads as a description of the run, and is itself
a topology file: ``--topology runs/.../plan.lock.yaml`` makes the same plan again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pytest_pd.plan.model import DeploymentPlan
from pytest_pd.plan.table import summary_line
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.document import dump
from pytest_pd.spec.lock import LOCK_VERSION, digest_of
from pytest_pd.spec.topology import TopologySpec


def plan_data(plan: DeploymentPlan) -> dict[str, Any]:
    """Return a plan as plain JSON values."""
    data: dict[str, Any] = _plain(asdict(plan))
    return data | {"url": plan.url, "gpus": plan.gpus, "gpu_hours": plan.gpu_hours}


def lock_text(
    plan: DeploymentPlan, topology: TopologySpec, cluster: ClusterSpec
) -> str:
    """Return the text of a lock file.

    Args:
        topology: As it was asked for, before anything was filled in.
    """
    content = {
        "lock": LOCK_VERSION,
        "summary": summary_line(plan),
        "identity": plan.identity,
        "topology": topology.model_dump(mode="json", exclude_unset=True),
        "cluster": cluster.model_dump(mode="json", exclude_unset=True),
        "plan": plan_data(plan),
    }
    head = "# Written by pytest-pd; --topology accepts it. Edit the topology instead.\n"
    return head + dump({**content, "digest": digest_of(content)})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list | frozenset | set):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, str) else value
