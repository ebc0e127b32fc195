"""What a topology was asked to be: its roles with their parallelism, from the lock."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pytest_pd.report.read import TopologyRecord
from pytest_pd.report.redact import redact, secrets_in

ROLES = ("prefill", "decode", "aggregated")
LOCK = "plan.lock.yaml"


@dataclass(frozen=True, slots=True)
class Pool:
    """One role as it ran.

    Attributes:
        workers: Replicas.
        gpus: Of all replicas; 0 on CPU.
        nodes: Number of nodes that its services lie on.
    """

    role: str
    workers: int
    tp: int
    pp: int
    dp: int
    ep: int
    attention_dp: bool
    gpus: int
    nodes: frozenset[str]
    args: tuple[str, ...]
    image: str


def asked_for(folder: Path) -> Mapping[str, Any]:
    """Return the topology of ``plan.lock.yaml``; empty where there is none."""
    try:
        text = (folder / LOCK).read_text(encoding="utf-8")
        found = yaml.safe_load(redact(text, secrets_in(os.environ)))
    except (OSError, yaml.YAMLError):
        return {}
    topology = found.get("topology") if isinstance(found, dict) else None
    return topology if isinstance(topology, dict) else {}


def pools_of(topology: TopologyRecord) -> list[Pool]:
    """Return the pools that served, in the order of `ROLES`."""
    asked = asked_for(topology.folder)
    return [pool for role in ROLES if (pool := _pool(role, topology, asked))]


def _pool(role: str, topology: TopologyRecord, asked: Mapping[str, Any]) -> Pool | None:
    services = [s for s in topology.plan.get("services", ()) if s.get("role") == role]
    if not services:
        return None
    spec = asked.get(role) or {}
    engine = asked.get("engine") or {}
    size = {key: int(spec.get(key) or 1) for key in ("tp", "pp", "dp", "ep")}
    return Pool(
        role=role,
        workers=len({service.get("replica", i) for i, service in enumerate(services)}),
        attention_dp=bool(spec.get("attention_dp")),
        gpus=sum(len(service.get("gpu_ids") or ()) for service in services),
        nodes=frozenset(str(service.get("node", "")) for service in services),
        args=tuple(str(word) for word in services[0].get("argv", ())),
        image=str(spec.get("image") or engine.get("image") or ""),
        **size,
    )
