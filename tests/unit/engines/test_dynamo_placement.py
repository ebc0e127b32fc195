"""The guide's two-node layout is planned; its note for one node is refused."""

from pathlib import Path

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.plan.model import Role
from pytest_pd.provision.compose import plan_deployment
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.file import read_topology
from pytest_pd.spec.locate import Roots

PROJECT = Path(__file__).parents[3]
TWO_NODES = ClusterSpec(name="two", hardware="h100", nodes=2, gpus_per_node=8)


@pytest.fixture
def topology():
    name = "dynamo_70b_tp2dp6_tp4dp1"
    return read_topology(PROJECT / "fixtures" / "topologies" / f"{name}.yaml")


def planned(topology):
    return plan_deployment(topology, TWO_NODES, roots=Roots(PROJECT))


def test_sixteen_gpus_are_used_once_each(topology):
    plan = planned(topology)

    used = [(s.node, gpu) for s in plan.services for gpu in s.gpu_ids]
    assert len(used) == len(set(used)) == 16
    assert plan.gpus == 16


def test_each_worker_sees_its_own_gpus(topology):
    plan = planned(topology)

    seen = {s.name: s.env.get("CUDA_VISIBLE_DEVICES") for s in plan.services}
    assert seen["prefill-3"] == "6,7"
    assert seen["prefill-5"] == "2,3"
    assert seen["decode-0"] == "4,5,6,7"


def test_control_plane_and_frontend_are_on_the_head_node(topology):
    plan = planned(topology)

    head = {s.name for s in plan.services if s.role in (Role.CONTROL, Role.ROUTER)}
    assert head == {"etcd", "nats", "router"}
    assert {plan.service(name).node for name in head} == {"node0"}
    assert plan.url == "http://node0:8080"
    assert plan.service("etcd").ports["etcd"] == 2379
    assert plan.service("nats").ports["nats"] == 4222


def test_workers_start_after_what_they_register_with(topology):
    for service in planned(topology).services:
        if service.role in (Role.PREFILL, Role.DECODE):
            assert set(service.after) == {"etcd", "nats"}


def test_ten_gpus_on_one_node_are_refused(topology):
    prefill = topology.prefill.model_copy(
        update={
            "replicas": 3,
            "workers": tuple(
                worker.model_copy(update={"node": 0, "gpus": ()})
                for worker in topology.prefill.workers[:3]
            ),
        }
    )
    decode = topology.decode.model_copy(
        update={
            "workers": (
                topology.decode.workers[0].model_copy(update={"node": 0, "gpus": ()}),
            )
        }
    )
    crowded = topology.model_copy(update={"prefill": prefill, "decode": decode})

    with pytest.raises(SpecError) as caught:
        planned(crowded)

    assert "decode-0" in str(caught.value)
    assert "3 x (tp 2) = 6 GPUs" in str(caught.value)


def test_baseline_uses_the_same_gpus():
    one = ClusterSpec(name="one", hardware="h100", nodes=1, gpus_per_node=8)
    gpus = set()
    for name in ("dynamo_70b_8gpu", "dynamo_70b_8gpu_aggregated"):
        found = read_topology(PROJECT / "fixtures" / "topologies" / f"{name}.yaml")
        plan = plan_deployment(found, one, roots=Roots(PROJECT))
        gpus.add(frozenset(g for s in plan.services for g in s.gpu_ids))

    assert gpus == {frozenset(range(8))}
