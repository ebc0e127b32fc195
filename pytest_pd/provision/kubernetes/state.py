"""What a pod's status says, in words for a person. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HOPELESS = {
    "ErrImagePull": "its image cannot be pulled",
    "ImagePullBackOff": "its image cannot be pulled",
    "ErrImageNeverPull": "its image is not on the node and may not be pulled",
    "InvalidImageName": "the name of its image is wrong",
    "CreateContainerConfigError": "its container cannot be configured",
    "CreateContainerError": "its container cannot be created",
}
"""Reasons of a waiting container that do not go away by waiting."""

HINTS = {
    "image": "correct the image, or give kubernetes.image_pull_secrets; try it with "
    "kubectl run --image",
    "Create": "look at the secrets and volumes that the pod names",
    "nvidia.com/gpu": "choose a cluster with free GPUs, or fewer replicas",
    "rdma": "the nodes have no RDMA device of that name: correct "
    "kubernetes.rdma_resource, or leave rdma_devices out",
}
SIGNALLED = 128


@dataclass(frozen=True, slots=True)
class PodState:
    """A pod as it was last seen.

    Attributes:
        phase: ``Pending``, ``Running``, ``Succeeded``, ``Failed``; ``Gone`` when
            somebody deleted it.
        ready: The kubelet's question was answered.
        code: Exit code of its container; negative for a signal; None while it runs.
        why: What it waits for or ended with, in the cluster's words.
        hopeless: Waiting will not help.
        image: What runs, with its digest.
        ip: Its own address in the cluster.
    """

    phase: str = "Pending"
    ready: bool = False
    code: int | None = None
    why: str = ""
    hopeless: str = ""
    uid: str = ""
    node: str = ""
    image: str = ""
    ip: str = ""

    def describe(self) -> str:
        """Return one line: ``Pending: 0/1 nodes are available``."""
        return f"{self.phase}: {self.why}" if self.why else self.phase


def state_of(pod: Mapping[str, Any]) -> PodState:
    """Return what the status of a pod says."""
    status = pod.get("status", {})
    found = (status.get("containerStatuses") or [{}])[0]
    state = found.get("state", {})
    waiting, ended = state.get("waiting", {}), state.get("terminated", {})
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    reason = waiting.get("reason", "")
    phase = status.get("phase", "Pending")
    return PodState(
        phase=phase,
        ready=conditions.get("Ready", {}).get("status") == "True",
        code=exit_code(ended, phase),
        why=why_of(status, waiting, ended, conditions),
        hopeless=HOPELESS.get(reason, ""),
        uid=pod.get("metadata", {}).get("uid", ""),
        node=pod.get("spec", {}).get("nodeName", ""),
        image=found.get("imageID", ""),
        ip=status.get("podIP", ""),
    )


def exit_code(ended: Mapping[str, Any], phase: str) -> int | None:
    """Return the code of an ended container: 128 + n is signal n."""
    if "exitCode" in ended:
        code = int(ended["exitCode"])
        signalled = SIGNALLED < code < SIGNALLED + 65
        return SIGNALLED - code if signalled else code
    return 1 if phase == "Failed" else None


def why_of(
    status: Mapping[str, Any],
    waiting: Mapping[str, Any],
    ended: Mapping[str, Any],
    conditions: Mapping[str, Any],
) -> str:
    """Return reason and message of whatever stands in the way."""
    placed = conditions.get("PodScheduled", {})
    unplaced = placed if placed.get("status") == "False" else {}
    for found in (ended, waiting, unplaced, status):
        words = [str(found.get(key) or "") for key in ("reason", "message")]
        if text := ": ".join(word for word in words if word):
            return text.strip()
    return ""


def hint_for(text: str) -> str:
    """Return what to do about words of a cluster; empty when we know nothing."""
    return next((hint for word, hint in HINTS.items() if word in text), "")
