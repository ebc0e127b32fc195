"""Routers and the control plane: where they go, what is refused, what is said."""

from collections.abc import Callable
from typing import Any

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.plan.model import DeploymentPlan, Role, SiteFacts

Plan = Callable[..., DeploymentPlan]
DYNAMO = {"services": ["etcd", "nats"]}


@pytest.mark.parametrize(
    ("node", "found"),
    [
        (None, "node0"),
        ("first", "node0"),
        ("own", "node2"),
        ("decode", "node1"),
        (3, "node3"),
    ],
)
def test_a_routers_node_can_be_chosen(plan: Plan, node: Any, found: str) -> None:
    deployment = plan(
        prefill={"tp": 8}, decode={"tp": 8}, router={"kind": "plain", "node": node}
    )

    assert deployment.service("router").node == found
    assert deployment.gpus == 16


def test_a_node_of_its_own_needs_one_more(plan: Plan) -> None:
    with pytest.raises(SpecError) as caught:
        plan(
            nodes=2,
            prefill={"tp": 8},
            decode={"tp": 8},
            router={"kind": "plain", "node": "own"},
        )

    assert (
        "router.node is own, and the workers use 2 of the 2 nodes" in caught.value.fact
    )
    assert "a cluster of 3 nodes" in caught.value.hint


def test_an_unknown_node_is_refused(plan: Plan) -> None:
    with pytest.raises(SpecError, match=r"router\.node: node 'rack' is not known"):
        plan(router={"kind": "plain", "node": "rack"})


def test_a_fleet_has_a_port_each_and_says_who_is_used(plan: Plan) -> None:
    deployment = plan(router={"kind": "plain", "replicas": 2, "balancer": "nginx"})

    assert [e.url for e in deployment.of_role(Role.ROUTER)] == [
        "http://node0:8000",
        "http://node0:8001",
    ]
    assert deployment.url == "http://node0:8000"
    assert any("behind nginx" in note for note in deployment.notes)


def test_both_phases_need_a_router(plan: Plan) -> None:
    with pytest.raises(SpecError, match="prefill and decode and no router"):
        plan(prefill={}, decode={}, router=None)


def test_several_aggregated_workers_need_a_router(plan: Plan) -> None:
    with pytest.raises(SpecError, match="2 aggregated workers and no router"):
        plan(aggregated={"replicas": 2}, router=None)


def test_the_control_plane_comes_first_and_is_known_to_all(
    plan: Plan, engine: Any
) -> None:
    deployment = plan(
        control_plane=DYNAMO, site=SiteFacts(addresses={"node0": "10.0.0.1"})
    )

    assert [s.name for s in deployment.services] == [
        *("etcd", "nats", "prefill-0", "decode-0", "router")
    ]
    assert engine.launched[0].peers == {
        "etcd": "10.0.0.1:2379",
        "nats": "10.0.0.1:4222",
    }
    assert deployment.service("etcd").after == ()
    assert deployment.service("prefill-0").after == ("etcd", "nats")
    assert deployment.service("router").after == ("etcd", "nats", "decode-0")
    assert deployment.of_role(Role.CONTROL) == ()


def test_commands_of_the_control_plane(plan: Plan) -> None:
    deployment = plan(
        control_plane={
            **DYNAMO,
            "nats_max_payload_mb": 32,
            "args": {"etcd": ["--quiet"]},
        },
        site=SiteFacts(run_dir="/r"),
    )
    etcd, nats = deployment.service("etcd"), deployment.service("nats")

    assert etcd.argv == (
        *("etcd", "--data-dir", "/r/etcd"),
        *("--listen-client-urls", "http://node0:2379"),
        *("--advertise-client-urls", "http://node0:2379"),
        *("--listen-peer-urls", "http://node0:2380"),
        *("--initial-advertise-peer-urls", "http://node0:2380"),
        *("--initial-cluster", "default=http://node0:2380", "--quiet"),
    )
    assert etcd.ready.target == "http://node0:2379/health"
    assert nats.argv == (
        *("nats-server", "-c", "/r/nats.conf", "-js", "-a", "node0", "-p", "4222"),
        *("-m", "8222", "--store_dir", "/r/nats"),
    )
    assert nats.files == {"nats.conf": "max_payload: 33554432\n"}
    assert nats.env_unset == ("NATS_*",)


def test_the_control_plane_may_have_its_own_node_and_ports(plan: Plan) -> None:
    deployment = plan(
        control_plane={
            **DYNAMO,
            "node": "own",
            "ports": {"etcd": 3379},
            "executables": {"etcd": "/opt/etcd"},
        },
        router={"kind": "plain", "node": "control"},
    )

    assert {deployment.service(n).node for n in ("etcd", "nats", "router")} == {"node2"}
    assert deployment.service("etcd").ports["etcd"] == 3379
    assert deployment.service("etcd").argv[0] == "/opt/etcd"


def test_control_plane_and_router_can_each_have_a_node(plan: Plan) -> None:
    deployment = plan(
        control_plane={**DYNAMO, "node": "own"}, router={"kind": "plain", "node": "own"}
    )

    assert deployment.service("etcd").node == "node2"
    assert deployment.service("router").node == "node3"


@pytest.mark.parametrize(
    ("block", "note"),
    [
        ({"setup": {"script": "x.sh"}}, "setup: is recorded"),
        ({"software": {"vllm": {"wheel": "x.whl"}}}, "software: is recorded"),
        (
            {"profiling": {"tool": "nsys", "role": "decode", "stop_step": 2}},
            "profiling:",
        ),
        ({"identity": {"versions": {"vllm": "0.32.0"}}}, "identity: is recorded"),
        ({"placement": {"same_nvlink_domain": True}}, "same_nvlink_domain: is rec"),
        (
            {"budgets": {"queue_s": 60, "tests_s": 60, "ready_s": 60}},
            "budgets.queue_s, tests_s: counted as costs",
        ),
        (
            {
                "prefill": {},
                "decode": {"speculative": {"method": "mtp", "forced_acceptance": 2}},
            },
            "Forced acceptance bends the tokens",
        ),
    ],
)
def test_what_is_carried_and_not_done_is_said(
    plan: Plan, block: dict[str, Any], note: str
) -> None:
    assert any(note in found for found in plan(**block).notes)
