"""What makes two deployments the same one: content, not place."""

from __future__ import annotations

import hashlib
import json
from pathlib import PurePath
from typing import Any

from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.topology import TopologySpec

_NOT_CONTENT = {"port", "ports", "path", "executable", "log", "logs", "mounts"}
_NOT_DEPLOYMENT = {
    *("name", "description", "level", "budgets"),
    *("workloads", "evals", "slo"),
}


def identity_of(
    topology: TopologySpec, cluster: ClusterSpec, *, rehearsal: bool = False
) -> str:
    """Return 16 hex digits over what was asked for.

    Addresses, ports, paths, names and run ids do not count; the last component
    of the model's path does. A rehearsal never equals the real thing.
    """
    # without defaults, so that a key we add later changes nobody's identity
    asked = topology.model_dump(mode="json", exclude_defaults=True)
    content = {k: _content(v) for k, v in asked.items() if k not in _NOT_DEPLOYMENT}
    content["model"]["weights"] = (
        topology.model.ref or PurePath(topology.model.path).name
    )
    content["cluster"] = [cluster.hardware, cluster.gpus_per_node, cluster.backend]
    content["rehearsal"] = rehearsal
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _content(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _content(v) for k, v in value.items() if k not in _NOT_CONTENT}
    if isinstance(value, list):
        return [_content(item) for item in value]
    return value
