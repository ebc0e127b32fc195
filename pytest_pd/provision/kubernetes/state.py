"""What a pod's status says, in words for a person. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_pd.provision.kubernetes.names import OUR_CONTAINERS

HOPELESS = {
    "ErrImageNeverPull": "its image is not on the node and may not be pulled",
    "InvalidImageName": "the name of its image is wrong",
    "CreateContainerConfigError": "its container cannot be configured",
    "CreateContainerError": "its container cannot be created",
}
"""Reasons of a waiting container that do not go away by waiting."""

NOT_PULLED = "its image cannot be pulled"
PULLS = ("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable")
NO_SUCH_IMAGE = re.compile(
    "not found|denied|unauthorized|manifest unknown|no match|no such (?!host)", re.I
)
"""What a registry says that will say the same again; the kubelet tries on the rest."""

TAKEN = (
    *("Evicted", "Preempting", "Preempted", "NodeLost", "Shutdown", "Terminated"),
    *("NodeShutdown", "NodeAffinity", "UnexpectedAdmissionError", "OutOf"),
)
"""Beginnings of the reasons of a pod that its node ended or would not have."""

OWN_LIMIT = re.compile("exceed(s|ed) (the|its) .*limit")
"""An eviction for what the container itself has used up: nobody else's doing."""

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
        delayed: What keeps it from starting and may pass by itself.
        lost: How the cluster took it away, whatever its service did; empty if it
            did not, or when nobody says so.
        image: What runs, with its digest.
        ip: Its own address in the cluster.
    """

    phase: str = "Pending"
    ready: bool = False
    code: int | None = None
    why: str = ""
    hopeless: str = ""
    delayed: str = ""
    lost: str = ""
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
    found = of_ours(status.get("containerStatuses") or [{}])
    state = found.get("state", {})
    waiting, ended = state.get("waiting", {}), state.get("terminated", {})
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    hopeless, delayed = troubles(waiting)
    phase = status.get("phase", "Pending")
    return PodState(
        phase=phase,
        ready=conditions.get("Ready", {}).get("status") == "True",
        code=exit_code(ended, phase),
        why=why_of(status, waiting, ended, conditions),
        hopeless=hopeless,
        delayed=delayed,
        lost=taken(status, conditions),
        uid=pod.get("metadata", {}).get("uid", ""),
        node=pod.get("spec", {}).get("nodeName", ""),
        image=found.get("imageID", ""),
        ip=status.get("podIP", ""),
    )


def of_ours(found: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the status of our container; the first where none has our names."""
    ours = (each for each in found if each.get("name") in OUR_CONTAINERS)
    return next(ours, found[0])


def troubles(waiting: Mapping[str, Any]) -> tuple[str, str]:
    """Return (hopeless, delayed): what stays in the way, and what may pass."""
    reason = waiting.get("reason", "")
    if reason not in PULLS:
        return HOPELESS.get(reason, ""), ""
    final = NO_SUCH_IMAGE.search(waiting.get("message") or "")
    return (NOT_PULLED, "") if final else ("", NOT_PULLED)


def taken(status: Mapping[str, Any], conditions: Mapping[str, Any]) -> str:
    """Return reason and message of an eviction, a preemption or a lost node."""
    target = conditions.get("DisruptionTarget", {})
    if target.get("status") == "True":
        return told(target)
    by_node = (status.get("reason") or "").startswith(TAKEN)
    own_fault = OWN_LIMIT.search(status.get("message") or "")
    return told(status) if by_node and not own_fault else ""


def told(found: Mapping[str, Any]) -> str:
    """Return ``reason: message``, as far as there is either."""
    words = [str(found.get(key) or "") for key in ("reason", "message")]
    return ": ".join(word for word in words if word).strip()


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
        if text := told(found):
            return text
    return ""


def hint_for(text: str) -> str:
    """Return what to do about words of a cluster; empty when we know nothing."""
    return next((hint for word, hint in HINTS.items() if word in text), "")
