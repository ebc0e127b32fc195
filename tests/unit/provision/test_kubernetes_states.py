"""What a pod's status says, and what a kubelet makes of words and variables."""

from __future__ import annotations

import base64

import pytest

from pytest_pd.provision.kube_local import expand
from pytest_pd.provision.kubernetes.client import refusal
from pytest_pd.provision.kubernetes.resource import path_in, path_of
from pytest_pd.provision.kubernetes.state import hint_for, state_of
from pytest_pd.provision.kubernetes.watch import gone


def pod(phase="Running", state=None, **status):
    found = {"phase": phase, "containerStatuses": [{"state": state or {}}], **status}
    return {"metadata": {"uid": "u"}, "spec": {}, "status": found}


@pytest.mark.parametrize(
    ("code", "ours"), [(0, 0), (1, 1), (127, 127), (137, -9), (143, -15), (255, 255)]
)
def test_codes_above_128_are_signals(code, ours):
    state = {"terminated": {"exitCode": code, "reason": "Error"}}

    assert state_of(pod("Failed", state)).code == ours


def test_a_pod_that_runs_has_no_code():
    assert state_of(pod(state={"running": {}})).code is None


def test_an_evicted_pod_failed_without_a_container():
    found = state_of(pod("Failed", reason="Evicted", message="low on memory"))

    assert (found.code, found.why) == (1, "Evicted: low on memory")


def test_a_pod_that_is_gone_was_killed_unless_it_ended_before():
    ended = state_of(pod("Failed", {"terminated": {"exitCode": 3}}))

    assert gone(state_of(pod())).code == -9
    assert gone(ended).code == 3


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff"])
def test_an_image_that_cannot_be_pulled_is_hopeless(reason):
    state = {"waiting": {"reason": reason, "message": "not found"}}
    found = state_of(pod("Pending", state))

    assert "image" in found.hopeless
    assert found.why == f"{reason}: not found"


def test_creating_a_container_is_no_reason_to_give_up():
    found = state_of(pod("Pending", {"waiting": {"reason": "ContainerCreating"}}))

    assert found.hopeless == ""


def test_the_scheduler_says_why_there_is_no_node():
    said = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    placed = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": said,
    }
    found = state_of(
        {"metadata": {}, "status": {"phase": "Pending", "conditions": [placed]}}
    )

    assert found.describe() == f"Pending: Unschedulable: {said}"
    assert "free GPUs" in hint_for(found.why)


def test_ready_is_the_kubelets_word():
    ready = {"type": "Ready", "status": "True"}

    assert state_of(pod(conditions=[ready])).ready
    assert not state_of(pod(conditions=[{**ready, "status": "False"}])).ready


@pytest.mark.parametrize(
    ("status", "message", "hint"),
    [
        (403, 'pods is forbidden: User "x" cannot create', "permission"),
        (403, "pods is forbidden: exceeded quota: small", "quota"),
        (422, "spec: Required value", ""),
    ],
)
def test_a_refusal_is_in_the_servers_words_with_what_to_do(status, message, hint):
    error = refusal("POST", "/x", status, {"message": message})

    assert error.fact == f"{message}."
    assert hint in error.hint


def test_paths_of_objects():
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "r", "namespace": "n"},
    }
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}

    assert path_of(role) == "/apis/rbac.authorization.k8s.io/v1/namespaces/n/roles/r"
    assert path_of(space) == "/api/v1/namespaces/n"
    assert path_in("n", "Lease", "l") == (
        "/apis/coordination.k8s.io/v1/namespaces/n/leases/l"
    )


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(IP):80", "1.2.3.4:80"),
        ("$$(IP)", "$(IP)"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$HOME", "$HOME"),
        ("$$HOME", "$HOME"),
        ("$(", "$("),
    ],
)
def test_references_are_expanded_as_kubernetes_does(text, expanded):
    assert expand.expand(text, {"IP": "1.2.3.4"}) == expanded


def test_variables_come_from_fields_secrets_and_each_other():
    secret = {"s": {"T": base64.b64encode(b"hush").decode()}}
    entries = [
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "URL", "value": "http://$(IP)"},
        {"name": "T", "valueFrom": {"secretKeyRef": {"name": "s", "key": "T"}}},
    ]
    env = expand.environment(entries, {"status.podIP": "1.2.3.4"}, secret)

    assert env == {"IP": "1.2.3.4", "URL": "http://1.2.3.4", "T": "hush"}


def test_a_secret_that_is_not_there_is_named():
    entry = {"name": "T", "valueFrom": {"secretKeyRef": {"name": "s", "key": "T"}}}

    with pytest.raises(KeyError, match="s"):
        expand.environment([entry], {}, {})
