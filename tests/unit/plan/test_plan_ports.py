"""The port ladder: fixed ports, the next free ones, and who may not share."""

from collections.abc import Callable
from typing import Any

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.plan.model import DeploymentPlan, SiteFacts

Plan = Callable[..., DeploymentPlan]
WIDE = {"http": 1, "side_channel": 4}


def ports(plan: DeploymentPlan) -> dict[str, dict[str, int]]:
    return {service.name: dict(service.ports) for service in plan.services}


def test_ports_count_up_on_a_node(plan: Plan) -> None:
    found = ports(plan(nodes=1, gpus=0, prefill={"replicas": 2}, decode={}))

    assert [each["http"] for each in found.values()] == [8100, 8101, 8102, 8000]


def test_ports_begin_again_on_another_node(plan: Plan) -> None:
    found = ports(plan(prefill={"tp": 8}, decode={"tp": 8}))

    assert (found["prefill-0"]["http"], found["decode-0"]["http"]) == (8100, 8100)


def test_nodes_with_one_address_share_one_ladder(plan: Plan) -> None:
    site = SiteFacts(addresses={"node0": "10.0.0.1", "node1": "10.0.0.1"})
    found = ports(plan(site=site, prefill={"tp": 8}, decode={"tp": 8}))

    assert (found["prefill-0"]["http"], found["decode-0"]["http"]) == (8100, 8101)


def test_wide_purposes_leave_a_gap(plan: Plan, engine: Any) -> None:
    engine.widths = WIDE
    found = ports(plan(nodes=1, gpus=0, prefill={"replicas": 2}, decode={}))

    assert [found[name]["side_channel"] for name in ("prefill-0", "prefill-1")] == [
        5600,
        5604,
    ]


def test_busy_ports_are_passed_over(plan: Plan) -> None:
    site = SiteFacts(
        busy=frozenset({("node0", 8100), ("node0", 8000), ("node1", 8101)})
    )
    found = ports(plan(nodes=1, gpus=0, site=site))

    assert found["prefill-0"]["http"] == 8101
    assert found["router"]["http"] == 8001


def test_a_wide_purpose_needs_all_of_its_ports_free(plan: Plan, engine: Any) -> None:
    engine.widths = WIDE
    site = SiteFacts(busy=frozenset({("node0", 5602)}))
    found = ports(plan(nodes=1, gpus=0, site=site))

    assert found["prefill-0"]["side_channel"] == 5603


def test_an_offset_moves_what_is_not_fixed(plan: Plan) -> None:
    found = ports(
        plan(
            nodes=1,
            gpus=0,
            site=SiteFacts(port_offset=200),
            decode={"port": 9000},
            prefill={},
        )
    )

    assert found["prefill-0"]["http"] == 8300
    assert found["decode-0"]["http"] == 9000


def test_a_fixed_port_counts_up_over_the_pool_on_one_node(plan: Plan) -> None:
    found = ports(plan(prefill={"replicas": 2, "port": 9000}, decode={"port": 9000}))

    assert found["prefill-0"]["http"] == 9000
    assert found["prefill-1"]["http"] == 9001
    assert found["decode-0"]["http"] == 9000  # on a node of its own


def test_a_workers_own_port_stays_as_it_is(plan: Plan) -> None:
    found = ports(
        plan(aggregated={"workers": [{"port": 9005}, {"port": 9001}, {}]}, nodes=1)
    )

    assert [each["http"] for each in found.values()][:3] == [9005, 9001, 8100]


def test_purposes_can_be_fixed_by_name(plan: Plan, engine: Any) -> None:
    engine.widths = WIDE
    found = ports(plan(aggregated={"replicas": 2, "ports": {"side_channel": 7000}}))

    assert found["aggregated-0"]["side_channel"] == 7000
    assert found["aggregated-1"]["side_channel"] == 7004


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        (
            {"prefill": {"replicas": 2, "port": 9000}, "decode": {"port": 9001}},
            "decode-0 (http) and prefill-1 (http) both want port 9001 on node0.",
        ),
        (
            {
                "prefill": {"port": 9000},
                "decode": {},
                "router": {"kind": "p", "port": 9000},
            },
            "router (http) and prefill-0 (http) both want port 9000 on node0.",
        ),
        (
            {"prefill": {"ports": {"grpc": 1}}, "decode": {}},
            "prefill-0: port 'grpc' is not known.",
        ),
    ],
)
def test_ports_that_meet_are_refused(
    plan: Plan, data: dict[str, Any], fact: str
) -> None:
    with pytest.raises(SpecError) as caught:
        plan(nodes=1, gpus=0, **data)

    assert caught.value.fact == fact


def test_a_fixed_port_in_use_is_refused_and_said_so(plan: Plan) -> None:
    site = SiteFacts(busy=frozenset({("node0", 9000)}))

    with pytest.raises(
        SpecError, match=r"prefill-0 \(http\) is to use port 9000"
    ) as caught:
        plan(nodes=1, gpus=0, site=site, prefill={"port": 9000}, decode={})

    assert "leave the port out" in caught.value.hint


def test_no_free_port_is_an_answer(plan: Plan) -> None:
    site = SiteFacts(busy=frozenset(("node0", port) for port in range(8100, 65536)))

    with pytest.raises(SpecError, match="node0 has no free port for prefill-0"):
        plan(nodes=1, gpus=0, site=site)
