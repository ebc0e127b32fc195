"""What the stand-in reports of its pods. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pytest_pd.provision.kube_local.container import Ended

IMAGE_ID = "pytest-pd.local/host@sha256:" + "0" * 64


def now() -> str:
    """Return the time as the API writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(kind: str, holds: bool, reason: str = "", message: str = "") -> Any:
    """Return one condition of a pod."""
    found = {
        "type": kind,
        "status": "True" if holds else "False",
        "lastTransitionTime": now(),
        "reason": reason,
        "message": message,
    }
    return {key: value for key, value in found.items() if value}


def unschedulable(why: str) -> dict[str, Any]:
    """Return the status of a pod that no node takes."""
    placed = condition("PodScheduled", False, "Unschedulable", why)
    return {"phase": "Pending", "conditions": [placed]}


def waiting(pod: Mapping[str, Any], reason: str, message: str) -> dict[str, Any]:
    """Return the status of a pod whose container cannot start."""
    state = {"waiting": {"reason": reason, "message": message}}
    return {
        "phase": "Pending",
        "conditions": [condition("PodScheduled", True), condition("Ready", False)],
        "containerStatuses": [of_container(pod, state, ready=False)],
    }


def running(
    pod: Mapping[str, Any], address: str, started: str, *, ready: bool, restarts: int
) -> dict[str, Any]:
    """Return the status of a pod that runs."""
    state = {"running": {"startedAt": started}}
    return {
        "phase": "Running",
        "hostIP": "127.0.0.1",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": started,
        "conditions": [
            condition("PodScheduled", True),
            condition("Initialized", True),
            condition("ContainersReady", ready),
            condition("Ready", ready),
        ],
        "containerStatuses": [of_container(pod, state, ready=ready, restarts=restarts)],
    }


def ended(pod: Mapping[str, Any], how: Ended, started: str) -> dict[str, Any]:
    """Return the status of a pod whose container ended for good."""
    state = {
        "terminated": {
            "exitCode": how.code,
            "reason": how.reason,
            "message": how.message,
            "startedAt": started,
            "finishedAt": now(),
        }
    }
    return {
        "phase": "Failed" if how.code else "Succeeded",
        "conditions": [condition("PodScheduled", True), condition("Ready", False)],
        "containerStatuses": [of_container(pod, state, ready=False)],
    }


def of_container(
    pod: Mapping[str, Any], state: Any, *, ready: bool, restarts: int = 0
) -> dict[str, Any]:
    """Return the status of the one container of a pod."""
    container = pod["spec"]["containers"][0]
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": IMAGE_ID,
        "ready": ready,
        "restartCount": restarts,
        "state": state,
    }
