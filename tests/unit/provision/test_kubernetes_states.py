"""What a pod's status says, and what a kubelet makes of words and variables."""

from __future__ import annotations

import base64
import io
import itertools
import subprocess
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from pytest_pd.errors import InfrastructureLost, ProvisionError
from pytest_pd.provision.kube_local import expand
from pytest_pd.provision.kubernetes import watch
from pytest_pd.provision.kubernetes.client import refusal
from pytest_pd.provision.kubernetes.process import KubeProcess
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


def test_a_container_that_the_cluster_put_before_ours_is_not_meant():
    found = [
        {"name": "istio-proxy", "state": {"running": {}}, "imageID": "proxy"},
        {"name": "vllm", "state": {"terminated": {"exitCode": 3}}, "imageID": "vllm"},
    ]
    state = state_of(pod("Running", containerStatuses=found))

    assert (state.code, state.image) == (3, "vllm")


LOW = "The node was low on resource: memory. Container router was using 4Gi"
OWN = 'Usage of EmptyDir volume "shm" exceeds the limit "8Gi". '
PREEMPTED = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "PreemptionByScheduler",
    "message": "preempting to accommodate a higher priority pod",
}


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("Evicted", LOW),
        ("Preempting", "Preempted in order to admit critical pod"),
        ("NodeLost", "Node which was running pod is unresponsive"),
        ("Terminated", "Pod was terminated in response to imminent node shutdown."),
        ("OutOfnvidia.com/gpu", "Node didn't have enough resource"),
    ],
)
def test_a_pod_that_its_node_ended_is_lost(reason, message):
    found = state_of(pod("Failed", reason=reason, message=message))

    assert found.lost == f"{reason}: {message}"


def test_a_pod_that_used_up_its_own_limit_failed_by_itself():
    found = state_of(pod("Failed", reason="Evicted", message=OWN))

    assert (found.lost, found.code) == ("", 1)
    assert found.why == f"Evicted: {OWN}".strip()


def test_a_pod_that_makes_room_for_another_is_lost_even_when_it_is_gone():
    found = gone(state_of(pod(conditions=[PREEMPTED])))

    assert "PreemptionByScheduler" in found.lost


def test_a_disruption_that_was_called_off_took_nothing():
    off = {**PREEMPTED, "status": "False"}

    assert state_of(pod(conditions=[off])).lost == ""


def test_a_deletion_that_nobody_explains_counts_as_killed():
    found = gone(state_of(pod()))

    assert (found.lost, found.code) == ("", -9)


def test_a_pod_that_is_gone_was_killed_unless_it_ended_before():
    ended = state_of(pod("Failed", {"terminated": {"exitCode": 3}}))

    assert gone(state_of(pod())).code == -9
    assert gone(ended).code == 3


def pull(message, reason="ErrImagePull"):
    return state_of(pod("Pending", {"waiting": {"reason": reason, "message": message}}))


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff"])
@pytest.mark.parametrize(
    "message",
    [
        'failed to resolve reference "docker.io/no/such:1": not found',
        "pull access denied, repository does not exist",
        "unexpected status from HEAD request: 401 Unauthorized",
        "manifest unknown",
        "no match for platform in manifest",
    ],
)
def test_an_image_that_the_registry_has_not_is_hopeless(reason, message):
    found = pull(message, reason)

    assert "image" in found.hopeless
    assert found.why == f"{reason}: {message}"


@pytest.mark.parametrize(
    "message",
    [
        "429 Too Many Requests - toomanyrequests: you have reached your limit",
        "unexpected status from GET request: 503 Service Unavailable",
        "dial tcp: lookup registry.example.com: no such host",
        "net/http: TLS handshake timeout",
        'Back-off pulling image "vllm:1"',
        "",
    ],
)
def test_a_registry_that_is_busy_is_waited_for(message):
    found = pull(message)

    assert (found.hopeless, found.delayed) == ("", "its image cannot be pulled")


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


def process(found, tmp_path, schedule_s=0.0):
    cluster = SimpleNamespace(
        client=None,
        watch=SimpleNamespace(state=lambda _: found, check=lambda: None),
        scope=SimpleNamespace(namespace="ns"),
        site=SimpleNamespace(schedule_s=schedule_s),
    )
    log = tmp_path / "decode-0.log"
    return KubeProcess("decode-0", "pod-7", log, cluster, mark="m", container="c")


def test_a_pod_that_was_taken_away_is_no_death_of_its_service(tmp_path):
    found = state_of(pod("Failed", reason="Evicted", message=LOW))
    made = process(found, tmp_path)

    with pytest.raises(InfrastructureLost, match=r"decode-0.* low on resource: memory"):
        made.exit_code()

    assert "was taken away: Evicted" in made.log.read_text()


def test_a_node_that_takes_no_signal_is_told(tmp_path, monkeypatch):
    def hang(words, *, timeout, **_):
        raise subprocess.TimeoutExpired(words, timeout)

    made = process(state_of(pod()), tmp_path)
    made._cluster.client = SimpleNamespace(words=("kubectl",))
    monkeypatch.setattr(subprocess, "run", hang)

    with pytest.raises(ProvisionError, match="kubectl exec did not answer within 30 s"):
        made.kill(9)


class Quiet:
    """An API server whose watches end regularly, with no event."""

    @contextmanager
    def stream(self, *_, **__):
        yield io.BytesIO()


def test_a_watch_on_which_nothing_happens_is_no_silence(monkeypatch):
    now_s, server = itertools.count(0.0, 100.0), Quiet()
    clock = SimpleNamespace(monotonic=lambda: next(now_s))
    monkeypatch.setattr(watch, "time", clock)
    made = watch.PodWatch(server, "ns", "a=b", lost_s=15.0)

    made._follow("1")

    made.check()
    with pytest.raises(InfrastructureLost, match="not answered for 200 s"):
        made.check()


def test_a_busy_registry_has_the_time_that_a_pod_may_wait(tmp_path):
    busy = pull("503 Service Unavailable")
    patient, hasty = (process(busy, tmp_path, schedule_s=s) for s in (60, -1))

    assert patient.exit_code() is None
    with pytest.raises(ProvisionError, match=r"cannot be pulled.*503"):
        hasty.exit_code()
