"""Shapes that vLLM dies of are refused; the others become the right flags."""

import pytest

from pytest_pd.engines.vllm import Vllm
from pytest_pd.errors import SpecError

VLLM = Vllm()


def flags(launch) -> dict[str, str | None]:
    """Flag to its value, or None for switches."""
    words = launch.argv[3:]
    found = {}
    for word, following in zip(words, [*words[1:], "--"], strict=True):
        if word.startswith("--"):
            found[word] = None if following.startswith("--") else following
    return found


def test_tp_over_two_nodes_with_hybrid_balancing_is_refused(make_topology):
    literal = make_topology(
        aggregated={"tp": 8, "dp_mode": "hybrid", "nodes_per_replica": 2}
    )

    with pytest.raises(SpecError, match=r"tp=8 x pp=1 = 8 ranks over 2 node") as caught:
        VLLM.check(literal)

    assert "either tp=8 without dp_mode" in caught.value.hint
    assert "dp=8 with tp=1" in caught.value.hint


@pytest.mark.parametrize("mode", ["hybrid", "external"])
def test_balancing_over_one_rank_is_refused(make_topology, mode):
    with pytest.raises(SpecError, match=f"dp_mode {mode} with dp=1"):
        VLLM.check(make_topology(aggregated={"dp_mode": mode}))


@pytest.mark.parametrize(
    ("dp", "nodes", "local"), [(2, 2, 1), (2, 1, 2)], ids=["one-each", "all-on-one"]
)
def test_hybrid_needs_two_ranks_on_each_of_several_nodes(
    make_topology, dp, nodes, local
):
    pool = {"dp": dp, "dp_mode": "hybrid", "nodes_per_replica": nodes}

    with pytest.raises(SpecError, match=rf"puts {local} rank\(s\) on each node"):
        VLLM.check(make_topology(aggregated=pool))


def test_uneven_ranks_are_refused(make_topology):
    with pytest.raises(SpecError, match="dp=5 ranks do not spread evenly over 2"):
        VLLM.check(make_topology(aggregated={"dp": 5, "nodes_per_replica": 2}))


def test_nodes_that_only_the_placement_knew_are_checked_at_launch(
    make_topology, make_worker
):
    topology = make_topology(aggregated={"dp": 2, "dp_mode": "hybrid"})
    VLLM.check(topology)

    with pytest.raises(SpecError, match="hybrid balancing with dp=2 over 2 node"):
        VLLM.launch(make_worker(topology, count=2))


def test_attention_dp_is_refused_by_name(make_topology):
    with pytest.raises(SpecError, match="attention_dp is not vLLM's"):
        VLLM.check(make_topology(aggregated={"tp": 8, "dp": 8, "attention_dp": True}))


def test_expert_parallelism_with_ranks_is_refused_on_cpu(make_topology):
    topology = make_topology(hardware="cpu", aggregated={"dp": 2, "ep": 2})

    with pytest.raises(SpecError, match="does not run on CPU"):
        VLLM.check(topology)


def test_one_gpu_has_no_parallelism_flags(make_topology, make_worker):
    launch = VLLM.launch(make_worker(make_topology()))

    assert not [word for word in launch.argv if "parallel" in word or "node" in word]


def test_tp_over_two_nodes_has_a_headless_follower(make_topology, make_worker):
    topology = make_topology(aggregated={"tp": 8})

    head, follower = (
        VLLM.launch(make_worker(topology, index=i, count=2)) for i in (0, 1)
    )

    assert flags(head) | {"--headless": None} == flags(follower) | {
        "--node-rank": "0",
        "--host": "10.0.0.1",
        "--port": "8100",
    }
    assert flags(follower)["--node-rank"] == "1"
    assert flags(follower)["--master-addr"] == "10.0.0.1"
    assert (head.endpoint, follower.endpoint) == (True, False)
    assert follower.ready.kind == "started"
    assert follower.metrics_port == ""


def test_hybrid_ranks_are_global_and_every_node_serves(make_topology, make_worker):
    topology = make_topology(aggregated={"dp": 8, "dp_mode": "hybrid", "ep": 8})

    head, second = (
        VLLM.launch(make_worker(topology, index=i, count=2)) for i in (0, 1)
    )

    assert head.ranks == (0, 1, 2, 3)
    assert second.ranks == (4, 5, 6, 7)
    assert second.endpoint
    found = flags(second)
    assert found["--data-parallel-size"] == "8"
    assert found["--data-parallel-size-local"] == "4"
    assert found["--data-parallel-start-rank"] == "4"
    assert found["--data-parallel-address"] == "10.0.0.1"
    assert found["--data-parallel-rpc-port"] == "13345"
    assert "--data-parallel-hybrid-lb" in found
    assert "--enable-expert-parallel" in found
    assert "--headless" not in found
    assert "--data-parallel-start-rank" not in flags(head)


def test_internal_ranks_on_two_nodes_have_one_url(make_topology, make_worker):
    topology = make_topology(aggregated={"dp": 4})

    head, follower = (
        VLLM.launch(make_worker(topology, index=i, count=2)) for i in (0, 1)
    )

    assert head.ranks == (0, 1, 2, 3)
    assert follower.ranks == ()
    assert "--headless" in flags(follower)
    assert "--data-parallel-hybrid-lb" not in flags(head)


def test_internal_ranks_on_one_node_need_no_address(make_topology, make_worker):
    launch = VLLM.launch(make_worker(make_topology(aggregated={"dp": 2})))

    assert flags(launch)["--data-parallel-size"] == "2"
    assert "--data-parallel-address" not in flags(launch)
    assert launch.ranks == (0, 1)


def test_external_ranks_are_processes_of_their_own(make_topology, make_worker):
    topology = make_topology(aggregated={"dp": 4, "dp_mode": "external"})

    launch = VLLM.launch(make_worker(topology, index=3, count=4))

    assert flags(launch)["--data-parallel-rank"] == "3"
    assert launch.ranks == (3,)
    assert launch.endpoint


def test_gpus_are_the_product_of_all_dimensions(make_topology):
    topology = make_topology(aggregated={"tp": 2, "pp": 2, "dp": 3})

    assert VLLM.gpus_per_replica(topology.aggregated) == 12


def test_nixl_has_a_port_for_every_rank(make_topology):
    ports = VLLM.ports(make_topology(aggregated={"dp": 4}).aggregated)

    assert ports == {"http": 1, "side_channel": 4, "dp_rpc": 1}
