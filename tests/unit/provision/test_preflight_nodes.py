"""What nodes say is judged: each bad state is named with its node."""

from dataclasses import replace

import pytest

from pytest_pd.plan.model import NodePlan
from pytest_pd.provision.preflight_nodes import bad_nodes, node_findings
from pytest_pd.spec.cluster import ClusterSpec
from tests.kit import plan_of

GIB = 2**30
GPU = {
    "index": "0",
    "uuid": "GPU-1",
    "name": "NVIDIA GB200",
    "driver_version": "580.1",
    "memory.used": "4",
    "memory.total": "189000",
    "clocks_throttle_reasons.active": "0x0",
    "ecc.errors.uncorrected.volatile.total": "0",
}
GOOD = {
    "machine": "aarch64",
    "python": "3.9.1",
    "open_files": 65536,
    "disk_bytes": 900 * GIB,
    "memlock_bytes": None,
    "shm_bytes": 400 * GIB,
    "gpus": [GPU] * 4,
    "gpu_processes": [],
    "infiniband": {"mlx5_0/1": "4: ACTIVE"},
}
CLUSTER = ClusterSpec(
    name="c", backend="slurm", hardware="gb200", nodes=2, gpus_per_node=4
)


def plan(**fields):
    nodes = tuple(NodePlan(f"node{n}", f"node{n}", 4, 4) for n in range(2))
    return replace(plan_of([]), nodes=nodes, **fields)


def bad(said, busy=frozenset(), **fields):
    facts = {"n01": GOOD, "n02": {**GOOD, **said}}
    found = node_findings(CLUSTER, plan(**fields), facts, busy)
    return [finding for finding in found if not finding.ok]


def test_good_nodes_have_no_finding():
    assert bad({}) == []


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"open_files": 1024}, "open files"),
        ({"memlock_bytes": 65536}, "locked memory"),
        ({"shm_bytes": 64 << 20}, "/dev/shm"),
        ({"gpus": [GPU] * 3}, "GPUs"),
        ({"gpus": [{**GPU, "name": "NVIDIA H100"}] * 4}, "hardware"),
        ({"gpus": [{**GPU, "memory.used": "90000"}] * 4}, "foreign GPU use"),
        ({"gpu_processes": ["77, 90000, python"]}, "foreign GPU use"),
        (
            {"gpus": [{**GPU, "ecc.errors.uncorrected.volatile.total": "2"}] * 4},
            "ECC",
        ),
        ({"infiniband": {"mlx5_0/1": "1: DOWN"}}, "InfiniBand"),
    ],
)
def test_a_bad_state_is_named_with_its_node(said, word):
    found = bad(said)

    assert [f.what for f in found] == [f"n02: {word}"]
    assert found[0].hint


def test_a_full_disk_is_told_with_both_numbers():
    found = bad({"disk_bytes": GIB}, disk_bytes=2 * GIB)

    assert "1.0 GiB free, 2.00 GiB needed" in found[0].said


def test_a_port_that_is_taken_is_named():
    (found,) = bad({}, busy=frozenset({("node1", 8087)}))

    assert found.what == "node1: port 8087"


def test_drivers_that_differ_are_found():
    found = bad({"gpus": [{**GPU, "driver_version": "570.9"}] * 4})

    assert found[-1].what == "driver"
    assert "570.9, 580.1" in found[-1].said


def test_numbers_that_a_card_does_not_have_are_none():
    gpu = {**GPU, "ecc.errors.uncorrected.volatile.total": "[N/A]"}

    assert bad({"gpus": [gpu] * 4}) == []


def test_a_rehearsal_asks_for_no_gpu():
    assert bad({"gpus": [], "memlock_bytes": 1}, rehearsal=True) == []


def test_a_node_whose_gpus_are_sick_can_serve_nobody():
    sick = {**GPU, "ecc.errors.uncorrected.volatile.total": "2"}
    facts = {"n01": GOOD, "n02": {**GOOD, "gpus": [GPU] * 3 + [sick]}}

    assert list(bad_nodes(CLUSTER, facts)) == ["n02"]
    assert "ECC" in bad_nodes(CLUSTER, facts)["n02"]


def test_a_node_without_gpus_among_others_is_bad():
    assert list(bad_nodes(CLUSTER, {"n01": GOOD, "n02": {**GOOD, "gpus": []}})) == [
        "n02"
    ]


def test_nodes_that_nobody_can_ask_about_gpus_are_not_bad():
    assert bad_nodes(CLUSTER, {"n01": {**GOOD, "gpus": []}}) == {}
