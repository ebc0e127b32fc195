"""Which node and which GPUs: packed, spread, spanning, pinned, shared, refused."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_pd.errors import SpecError
from pytest_pd.plan.model import DeploymentPlan, Role
from pytest_pd.plan.placement import Replica, Slot, place
from pytest_pd.spec.pool import PoolSpec

Plan = Callable[..., DeploymentPlan]


def where(plan: DeploymentPlan) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {s.name: (s.node, s.gpu_ids) for s in plan.services if s.role != Role.ROUTER}


def test_small_replicas_of_one_role_fill_a_node(plan: Plan) -> None:
    found = where(plan(prefill={"replicas": 3, "tp": 2}, decode={"tp": 4}))

    assert found == {
        "prefill-0": ("node0", (0, 1)),
        "prefill-1": ("node0", (2, 3)),
        "prefill-2": ("node0", (4, 5)),
        "decode-0": ("node1", (0, 1, 2, 3)),
    }


def test_spread_opens_a_node_for_each_replica(plan: Plan) -> None:
    found = where(
        plan(
            prefill={"replicas": 2, "tp": 2},
            decode={"tp": 2},
            placement={"pack": False},
        )
    )

    assert [node for node, _ in found.values()] == ["node0", "node1", "node2"]


def test_a_replica_larger_than_a_node_spans_nodes(plan: Plan) -> None:
    deployment = plan(gpus=4, aggregated={"tp": 8}, router=None)

    assert where(deployment) == {
        "aggregated-0-0": ("node0", (0, 1, 2, 3)),
        "aggregated-0-1": ("node1", (0, 1, 2, 3)),
    }
    assert [s.ranks for s in deployment.services] == [(0, 1, 2, 3), (4, 5, 6, 7)]


def test_nodes_per_replica_leaves_gpus_idle(plan: Plan) -> None:
    deployment = plan(aggregated={"tp": 8, "nodes_per_replica": 2}, router=None)

    assert [s.gpu_ids for s in deployment.services] == [(0, 1, 2, 3)] * 2
    assert (deployment.gpus, deployment.gpus_held) == (8, 16)


def test_external_balancing_is_a_process_per_rank(plan: Plan) -> None:
    deployment = plan(
        gpus=4, aggregated={"dp": 8, "dp_mode": "external"}, router={"kind": "plain"}
    )
    workers = [s for s in deployment.services if s.role is Role.AGGREGATED]

    assert [(s.node, s.gpu_ids) for s in workers] == [
        (f"node{rank // 4}", (rank % 4,)) for rank in range(8)
    ]
    assert [e.ranks for e in deployment.of_role(Role.AGGREGATED)] == [
        (rank,) for rank in range(8)
    ]


def test_attention_dp_takes_no_gpus_of_its_own(plan: Plan) -> None:
    deployment = plan(
        aggregated={"tp": 8, "dp": 8, "attention_dp": True}, router={"kind": "plain"}
    )

    assert deployment.gpus == 8


def test_pins_are_honoured_and_choose_first(plan: Plan) -> None:
    found = where(
        plan(
            prefill={
                "tp": 2,
                "workers": [{}, {"node": 1, "gpus": [6, 7]}, {"node": "node3"}],
            },
            decode={"tp": 8, "node": 2},
        )
    )

    assert found == {
        "prefill-0": ("node0", (0, 1)),
        "prefill-1": ("node1", (6, 7)),
        "prefill-2": ("node3", (0, 1)),
        "decode-0": ("node2", tuple(range(8))),
    }


def test_what_is_pinned_is_not_given_to_an_earlier_worker(plan: Plan) -> None:
    found = where(plan(aggregated={"workers": [{}, {"node": 0, "gpus": [0]}]}, nodes=1))

    assert found == {"aggregated-0": ("node0", (1,)), "aggregated-1": ("node0", (0,))}


def test_a_spanning_replica_can_be_pinned_node_by_node(plan: Plan) -> None:
    deployment = plan(
        gpus=4, aggregated={"tp": 8, "workers": [{"nodes": [3, 1]}]}, router=None
    )

    assert [s.node for s in deployment.services] == ["node3", "node1"]
    assert [n.name for n in deployment.nodes] == ["node1", "node3"]


def test_workers_of_one_pool_may_differ_in_shape(plan: Plan) -> None:
    found = where(plan(prefill={"workers": [{"tp": 1}, {"tp": 4}]}, decode={}))

    assert found["prefill-0"] == ("node0", (0,))
    assert found["prefill-1"] == ("node0", (1, 2, 3, 4))


def test_roles_stay_apart_while_there_are_nodes(plan: Plan) -> None:
    deployment = plan(prefill={"tp": 2}, decode={"tp": 2})

    assert len(deployment.nodes) == 2
    assert deployment.notes == ()


def test_roles_share_when_there_are_too_few_nodes_and_it_is_said(plan: Plan) -> None:
    deployment = plan(nodes=1, prefill={"tp": 2}, decode={"tp": 2})

    assert where(deployment)["decode-0"] == ("node0", (2, 3))
    assert "Roles share node0" in deployment.notes[0]


def test_preferred_shares_although_there_are_nodes(plan: Plan) -> None:
    deployment = plan(
        prefill={"tp": 2},
        decode={"tp": 2},
        placement={"roles_share_nodes": "preferred"},
    )

    assert len(deployment.nodes) == 1


def test_required_refuses_a_node_with_one_role(plan: Plan) -> None:
    with pytest.raises(SpecError, match="required, and node0 would hold only some"):
        plan(
            prefill={"tp": 8},
            decode={"tp": 8},
            placement={"roles_share_nodes": "required"},
        )


def test_off_refuses_too_few_nodes_with_the_arithmetic(plan: Plan) -> None:
    with pytest.raises(SpecError) as caught:
        plan(
            nodes=1,
            prefill={"tp": 2, "replicas": 2},
            decode={"tp": 2},
            placement={"roles_share_nodes": "off"},
        )

    assert "t does not fit 'c': decode-0 needs 1 node of 2 free GPUs" in str(
        caught.value
    )
    assert "prefill: 2 x (tp 2) = 4 GPUs" in caught.value.fact
    assert "wanted 6 GPUs; there are 1 nodes x 8 = 8" in caught.value.fact


def test_without_gpus_everything_shares_a_node_silently(plan: Plan) -> None:
    deployment = plan(nodes=1, gpus=0, prefill={"replicas": 2}, decode={"tp": 4})

    assert {node for node, _ in where(deployment).values()} == {"node0"}
    assert deployment.notes == ()
    assert deployment.gpus == 0


def test_without_gpus_roles_and_replicas_use_the_nodes_there_are(plan: Plan) -> None:
    found = where(plan(nodes=3, gpus=0, prefill={"replicas": 2}, decode={}))

    assert [node for node, _ in found.values()] == ["node0", "node1", "node2"]


@pytest.mark.parametrize(
    ("pool", "fact"),
    [
        ({"tp": 6}, None),
        ({"tp": 12}, None),
        ({"tp": 9}, "9 GPUs (tp 9) do not fit 2 nodes of 8: 9 / 2 = 4.5 per node"),
        (
            {"tp": 8, "nodes_per_replica": 3},
            "8 GPUs (tp 8) do not fit 3 nodes of 8: 8 / 3 = 2.66667 per node",
        ),
        (
            {"tp": 16, "nodes_per_replica": 1},
            "16 GPUs (tp 16) do not fit 1 node of 8: 16 / 1 = 16 per node",
        ),
        ({"tp": 2, "dp": 3, "gpus_per_replica": 8}, "shape tp 2 x dp 3 needs 6"),
        ({"tp": 2, "gpus_per_replica": 2}, None),
        (
            {"tp": 2, "dp": 12, "dp_mode": "external"},
            None,
        ),
        (
            {"tp": 1, "dp": 3, "dp_mode": "external", "nodes_per_replica": 2},
            "3 GPUs (tp 1 x dp 3) do not fit 2 nodes",
        ),
        ({"workers": [{"gpus": [0, 0]}], "tp": 2}, "2 different ones per node"),
        ({"workers": [{"gpus": [0]}], "tp": 2}, "needs 2 different ones"),
        ({"workers": [{"gpus": [8]}]}, "GPU 8 is pinned; a node of 'c' has 8 (0 to 7)"),
        ({"workers": [{"node": 9}]}, "pinned to node 9; the cluster has 4 (0 to 3)"),
        ({"workers": [{"node": "rack"}]}, "node 'rack' is not known"),
        ({"workers": [{"nodes": [0, 1]}]}, "spans 1 nodes and 2 are pinned"),
        ({"workers": [{"node": 0}], "tp": 16}, "spans 2 nodes and 1 is pinned"),
        (
            {"workers": [{"node": 0, "gpus": [1]}, {"node": 0, "gpus": [1]}]},
            "aggregated-1 needs GPUs [1] of node 0",
        ),
        (
            {"tp": 6, "workers": [{"node": 0}, {"node": 0}]},
            "aggregated-1 needs 6 GPUs of node 0; free there are [6, 7] of 8",
        ),
        ({"tp": 8, "replicas": 5}, "needs 1 node of 8 free GPUs; 0 of the cluster's 4"),
    ],
)
def test_shapes_and_pins_that_do_not_fit(
    plan: Plan, pool: dict[str, Any], fact: str | None
) -> None:
    if fact is None:
        plan(aggregated=pool, router={"kind": "plain"})
        return
    with pytest.raises(SpecError) as caught:
        plan(aggregated=pool, router={"kind": "plain"})
    assert fact in caught.value.fact


def test_a_pin_on_the_other_roles_node_is_refused_when_apart(plan: Plan) -> None:
    with pytest.raises(SpecError, match="which prefill has, and placement"):
        plan(
            prefill={"node": 0},
            decode={"node": 0},
            placement={"roles_share_nodes": "off"},
        )


def test_hosts_of_an_inventory_may_have_different_gpus(plan: Plan) -> None:
    hosts = [{"host": "a", "gpus": 2}, {"host": "b", "gpus": 8}]
    deployment = plan(
        nodes=2,
        cluster={"backend": "ssh", "ssh": {"hosts": hosts}},
        prefill={"tp": 4},
        decode={"node": "a"},
    )

    assert where(deployment) == {
        "prefill-0": ("node1", (0, 1, 2, 3)),
        "decode-0": ("node0", (0,)),
    }
    assert [n.gpus for n in deployment.nodes] == [2, 8]


shapes = st.tuples(
    st.sampled_from([Role.PREFILL, Role.DECODE]),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(1, 4),
)


@settings(deadline=None)
@given(
    st.lists(shapes, min_size=1, max_size=12),
    st.lists(st.integers(0, 8), min_size=1, max_size=16),
    st.booleans(),
    st.booleans(),
)
def test_no_gpu_is_given_twice_and_every_process_gets_its_own(
    wanted: list[tuple[Role, int, int, int]], gpus: list[int], shared: bool, pack: bool
) -> None:
    replicas = [
        Replica(role, number, PoolSpec(), nodes, per_node, each)
        for number, (role, nodes, per_node, each) in enumerate(wanted)
    ]
    try:
        slots = place(replicas, gpus, shared=shared, pack=pack)
    except SpecError as error:
        assert "needs" in error.fact  # noqa: PT017
        return

    held = [(slot.node, gpu) for slot in slots for gpu in slot.gpu_ids]
    assert len(held) == len(set(held))
    assert all(gpu < gpus[node] for node, gpu in held)
    assert all(len(slot.gpu_ids) == slot.replica.gpus for slot in slots)
    _every_process_once(replicas, slots)
    if not shared:
        roles: dict[int, set[Role]] = {}
        for slot in slots:
            roles.setdefault(slot.node, set()).add(slot.replica.role)
        assert all(len(found) == 1 for found in roles.values())


def _every_process_once(replicas: list[Replica], slots: tuple[Slot, ...]) -> None:
    seen = [(slot.replica.number, slot.index) for slot in slots]
    assert seen == [
        (replica.number, index)
        for replica in replicas
        for index in range(replica.nodes * replica.per_node)
    ]
    for replica in replicas:
        nodes = {slot.node for slot in slots if slot.replica is replica}
        assert len(nodes) == replica.nodes


@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    tp=st.sampled_from([1, 2, 4, 8]),
    pp=st.sampled_from([1, 2]),
    dp=st.sampled_from([1, 2, 4]),
    replicas=st.integers(1, 3),
    mode=st.sampled_from(["internal", "hybrid", "external"]),
    node_gpus=st.sampled_from([0, 2, 4, 8]),
)
def test_every_rank_and_every_port_is_given_once(
    plan: Plan, tp: int, pp: int, dp: int, replicas: int, mode: str, node_gpus: int
) -> None:
    pool = {"tp": tp, "pp": pp, "dp": dp, "replicas": replicas, "dp_mode": mode}
    try:
        made = plan(100, node_gpus, aggregated=pool)
    except SpecError as error:
        assert "do not" in error.fact  # noqa: PT017
        return

    workers = [s for s in made.services if s.role is Role.AGGREGATED]
    for replica in range(replicas):
        ranks = [r for s in workers if s.replica == replica for r in s.ranks]
        assert ranks == list(range(tp * pp * dp))
    ports = [(s.node, port) for s in made.services for port in s.ports.values()]
    assert len(ports) == len(set(ports))
    assert len({s.name for s in made.services}) == len(made.services)
