"""A plan as manifests: words, names, labels, resources, secrets."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pytest_pd.errors import ProvisionError
from pytest_pd.plan.model import ReadyPlan, Role
from pytest_pd.provision.kubernetes import names
from pytest_pd.provision.kubernetes.guard import guard
from pytest_pd.provision.kubernetes.manifest import manifests, secret, setting_of
from pytest_pd.provision.kubernetes.pod import container, environment, pod, word
from pytest_pd.spec.site_kubernetes import KubernetesSite
from tests.kit import plan_of, service

SITE = KubernetesSite(image="img")
SCOPE = names.scope_of(SITE, "abc", "toy_1p1d", "jo@host")


def setting(*services, site=SITE, scope=SCOPE, **fields):
    plan = replace(plan_of(services, nodes=len(services)), **fields)
    return setting_of(plan, site, scope)


def rendered(one, **fields):
    found = setting(one, **fields)
    return pod(found, one)


def only_container(one, **fields):
    return rendered(one, **fields)["spec"]["containers"][0]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Llama_3.1 8B", "llama-3-1-8b"),
        ("a" * 80, "a" * 63),
        ("--x--", "x"),
        ("§", "x"),
    ],
)
def test_any_name_becomes_a_dns_label(text, label):
    assert names.dns_label(text) == label


@pytest.mark.parametrize("text", ["meta-llama/Llama 3", "_x_", "a" * 90, "jo@host"])
def test_label_values_are_what_the_api_takes(text):
    found = names.label_value(text)
    assert len(found) <= 63
    assert found[0].isalnum()
    assert found[-1].isalnum()
    assert all(c.isalnum() or c in "-_." for c in found)


def test_a_run_has_a_namespace_of_its_own_unless_one_is_named():
    named = names.scope_of(KubernetesSite(namespace="team"), "abc", "toy")

    assert (SCOPE.namespace, SCOPE.namespace_is_ours) == (
        "pytest-pd-abc-toy-1p1d",
        True,
    )
    assert (named.namespace, named.namespace_is_ours) == ("team", False)


def test_pods_in_a_shared_namespace_carry_the_run_in_their_name():
    scope = names.scope_of(KubernetesSite(namespace="team"), "abc", "toy")

    assert (
        rendered(service("one", "x"), scope=scope)["metadata"]["name"] == "pd-abc-one"
    )


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("plain", "plain"),
        ("$HOME `id` $(id)", "$$HOME `id` $$(id)"),
        ("one.pd.pytest-pd-abc-toy-1p1d.svc", "$(POD_IP)"),
        ("http://one.pd.pytest-pd-abc-toy-1p1d.svc:80", "http://$(POD_IP):80"),
        (
            "http://big-one.pd.pytest-pd-abc-toy-1p1d.svc:80",
            "http://big-one.pd.pytest-pd-abc-toy-1p1d.svc:80",
        ),
        ("$(POD_NAMESPACE)", "$(POD_NAMESPACE)"),
    ],
)
def test_words_reach_the_container_unchanged_but_for_its_own_address(text, written):
    one = service("one", "x")

    assert word(setting(one), one, text) == written


def test_other_pods_are_named_and_not_numbered():
    one, two = service("one", "x"), service("two", "x", node="node1")
    found = setting(one, two)

    address = found.addresses["node1"]
    assert word(found, one, address) == address
    assert word(found, two, address) == "$(POD_IP)"


def test_the_program_is_the_command_so_that_no_entry_point_wraps_it():
    found = only_container(service("one", "vllm", "serve"))

    assert found["command"] == ["vllm", "serve"]
    assert "args" not in found


def test_a_service_that_dies_stays_dead():
    spec = rendered(service("one", "x"))["spec"]

    assert spec["restartPolicy"] == "Never"
    assert spec["automountServiceAccountToken"] is False


def test_gpus_cpus_and_memory_are_limits_and_requests():
    one = service(
        *("one", "x"), gpu_ids=(0,), cpus=22, memory_gib=100.0, rdma_devices=2
    )
    found = only_container(one)["resources"]

    wanted = {"cpu": "22", "memory": "100Gi", "nvidia.com/gpu": "1", "rdma/ib": "2"}
    assert found == {"limits": wanted, "requests": wanted}


def test_a_rehearsal_asks_for_nothing():
    one = service("one", "x", gpu_ids=(0,), cpus=22)

    assert "resources" not in only_container(one, rehearsal=True)


def test_a_secret_is_referred_to_and_never_written():
    one = service("one", "x", env_from_host=("HF_TOKEN",))
    found = setting(one)

    entry = next(e for e in environment(found, one) if e["name"] == "HF_TOKEN")
    ref = {"name": "environment", "key": "HF_TOKEN"}
    assert entry["valueFrom"] == {"secretKeyRef": ref}
    written = [
        m for m in manifests(found.plan, SITE, SCOPE, 5) if m["kind"] == "Secret"
    ]
    assert [m["stringData"] for m in written] == [{}]


def test_the_secret_of_a_run_says_where_its_values_came_from():
    found = secret(SCOPE, {"B": "2", "A": "1"})

    assert found["stringData"] == {"A": "1", "B": "2"}
    assert found["metadata"]["annotations"] == {"pytest-pd/from-environment": "A,B"}


@pytest.mark.parametrize(
    ("ready", "probe"),
    [
        (
            ReadyPlan("http", "http://h:8000/health"),
            {"httpGet": {"path": "/health", "port": 8000}, "timeoutSeconds": 2},
        ),
        (ReadyPlan("tcp", "h:8000"), {"tcpSocket": {"port": 8000}}),
        (ReadyPlan("started", ""), None),
    ],
)
def test_the_kubelet_asks_what_the_harness_asks(ready, probe):
    found = only_container(service("one", "x", ready=ready)).get("readinessProbe")

    timing = {"periodSeconds": 1, "failureThreshold": 3}
    assert found == (probe and {**probe, **timing})


def test_files_come_from_a_config_map_to_their_place():
    one = service("one", "x", files={"conf/a.yaml": "x: 1\n"})
    found = manifests(setting(one).plan, SITE, SCOPE, 5)

    config = next(m for m in found if m["metadata"]["name"] == "one")
    assert config["data"] == {"conf.a.yaml": "x: 1\n"}
    mount = {
        "name": "files",
        "mountPath": "/run/pytest-pd/conf/a.yaml",
        "subPath": "conf.a.yaml",
    }
    assert mount in only_container(one)["volumeMounts"]


def test_a_pod_without_an_image_is_refused_by_name():
    one = service("one", "x")

    with pytest.raises(ProvisionError, match="one has no image"):
        pod(setting(one, site=KubernetesSite()), one)


def test_the_topologys_image_wins_over_the_clusters():
    assert only_container(service("one", "x", image="own"))["image"] == "own"


def test_every_object_carries_run_topology_and_owner():
    one = service("one", "x", files={"a": "b"}, env_from_host=("T",))

    for each in manifests(setting(one).plan, SITE, SCOPE, 5):
        labels = each["metadata"]["labels"]
        assert labels.items() >= SCOPE.labels.items(), each["kind"]
        assert labels["pytest-pd/owner"] == "jo-host"


def test_the_lease_owns_every_other_object():
    owned = replace(SCOPE, owner_uid="u-1")
    one = service("one", "x")

    for each in [*guard(owned, SITE, 5), rendered(one, scope=owned)]:
        (owner,) = each["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == ("Lease", "u-1")


def test_the_guard_may_end_its_own_run_and_nothing_else():
    role = next(m for m in guard(SCOPE, SITE, 5) if m["kind"] == "Role")

    allowed = {
        r["resources"][0]: (r["resourceNames"], r["verbs"]) for r in role["rules"]
    }
    assert allowed == {
        "leases": ([SCOPE.name], ["get", "delete"]),
        "namespaces": ([SCOPE.namespace], ["delete"]),
    }


def test_the_guard_of_a_shared_namespace_may_not_delete_it():
    scope = names.scope_of(KubernetesSite(namespace="team"), "abc", "toy")
    found = guard(scope, SITE, 5)

    assert "namespaces" not in json.dumps([m.get("rules") for m in found])
    assert found[-1]["spec"]["containers"][0]["command"][-1] == ""


def test_service_ports_say_their_protocol():
    one = replace(service("prefill-0", "x", ports={"http": 8000}), role=Role.PREFILL)
    kubernetes = {"roles": {"prefill": {"name": "ms-prefill"}}}
    found = manifests(setting(one, kubernetes=kubernetes).plan, SITE, SCOPE, 5)

    shown = next(m for m in found if m["metadata"]["name"] == "ms-prefill")
    assert shown["spec"]["ports"] == [
        {"name": "http", "port": 8000, "targetPort": 8000, "protocol": "TCP"}
    ]
    assert [m["metadata"]["name"] for m in found if m["kind"] == "Pod"][1] == (
        "ms-prefill-0"
    )


def test_site_switches_reach_the_pod():
    site = KubernetesSite(
        image="img",
        node_selector={"zone": "a"},
        tolerations=({"operator": "Exists"},),
        priority_class="high",
        image_pull_secrets=("mine",),
        volumes=({"name": "w", "mount_path": "/w", "source": {"emptyDir": {}}},),
    )
    spec = rendered(service("one", "x"), site=site)["spec"]

    assert spec["nodeSelector"] == {"zone": "a"}
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["priorityClassName"] == "high"
    assert spec["imagePullSecrets"] == [{"name": "mine"}]
    assert {"name": "w", "emptyDir": {}} in spec["volumes"]


def test_names_of_ports_fit():
    one = service("one", "x", ports={"a_very_long_purpose": 1})

    assert container(setting(one), one)["ports"][0]["name"] == "a-very-long-pur"
