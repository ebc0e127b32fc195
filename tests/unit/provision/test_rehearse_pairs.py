"""What a rehearsal changes in a topology and a cluster, and what it does not."""

from pathlib import Path

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.plan.model import Role
from pytest_pd.provision.compose import plan_deployment
from pytest_pd.provision.rehearse import is_rehearsal, rehearse
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.file import read_topology
from pytest_pd.spec.locate import Roots
from pytest_pd.spec.site_slurm import ContainerSite, SlurmSite

PROJECT = Path(__file__).parents[3]
ROOTS = Roots(PROJECT)
KEPT = ("name", "role", "node", "gpu_ids", "ranks", "ports", "log")
LAPTOP = ClusterSpec(name="local")
RACK = ClusterSpec(
    name="rack",
    backend="slurm",
    hardware="gb200",
    nodes=18,
    gpus_per_node=4,
    models={"kimi_k2_thinking_nvfp4": "nvidia/Kimi"},
    slurm=SlurmSite(partition="batch", container=ContainerSite(image="/a.sqsh")),
)


def topology(name, **update):
    found = read_topology(PROJECT / "fixtures" / "topologies" / f"{name}.yaml")
    return found.model_copy(update=update)


def plan(name, cluster=LAPTOP, installed=True, **update):
    pair = rehearse(topology(name, **update), cluster, installed=lambda _: installed)
    return plan_deployment(*pair, roots=ROOTS)


def real(name):
    return plan_deployment(topology(name), RACK, roots=ROOTS)


@pytest.mark.parametrize("name", ["k2_2p1d", "k2_2p1d_tp8"])
def test_a_rehearsal_has_the_shape_of_the_real_plan(name):
    wanted, played = real(name), plan(name)

    def shape(each):
        return [getattr(each, name) for name in KEPT]

    assert [shape(s) for s in played.services] == [shape(s) for s in wanted.services]
    assert [e.url for e in played.endpoints] == [e.url for e in wanted.endpoints]
    assert len(played.nodes) == 7
    assert played.gpus == 24


def test_k2_has_six_endpoints_and_its_tensor_parallel_twin_three():
    def workers(found):
        return [e for e in found.endpoints if e.role is not Role.ROUTER]

    assert len(workers(plan("k2_2p1d"))) == 6
    assert len(workers(plan("k2_2p1d_tp8"))) == 3


def test_a_rehearsal_says_so_in_name_identity_and_plan():
    played = plan("k2_2p1d")

    assert played.name == "k2_2p1d@rehearsal"
    assert played.rehearsal
    assert played.identity != real("k2_2p1d").identity
    assert any("REHEARSAL" in note for note in played.notes)


def test_the_real_words_stand_behind_the_stand_in():
    wanted, played = real("k2_2p1d").services[1], plan("k2_2p1d").services[1]
    flags = [word for word in wanted.argv if word.startswith("--")]

    assert played.argv[1:4] == ("-m", "pytest_pd.reference", "serve")
    assert [f for f in flags if f not in played.argv] == []


def test_the_stand_in_has_the_length_of_its_own_model():
    assert "--max-model-len" in real("qwen3_4b_1p1d_shared").service("decode-0").argv
    played = plan("qwen3_4b_1p1d_shared").service("decode-0")

    assert "--max-model-len" not in played.argv
    assert "--gpu-memory-utilization" in played.argv
    assert "8192" not in played.argv


def test_followers_stay_headless():
    follower = plan("k2_2p1d_tp8").service("prefill-0-1")

    assert "--headless" in follower.argv
    assert follower.ready.kind == "started"


def test_a_flag_that_the_release_has_not_is_refused_with_the_nearest():
    engine = topology("k2_2p1d").engine.model_copy(
        update={"args": ("--max-modle-len",)}
    )

    with pytest.raises(SpecError, match="--max-modle-len") as caught:
        plan("k2_2p1d", engine=engine)

    assert "--max-model-len" in str(caught.value)


def test_an_option_without_its_value_is_refused():
    engine = topology("k2_2p1d").engine.model_copy(
        update={"args": ("--max-model-len",)}
    )

    with pytest.raises(SpecError, match="needs a value"):
        plan("k2_2p1d", engine=engine)


def test_the_real_router_is_used_where_it_is_installed():
    assert plan("k2_2p1d").service("router").argv[0].endswith("vllm-router")


def test_the_built_in_proxy_stands_in_for_a_router_that_is_not_there():
    router = plan("k2_2p1d", installed=False).service("router")

    assert router.argv[1:3] == ("-m", "pytest_pd.proxy")


def test_a_cluster_of_the_right_hardware_keeps_its_limits_and_loses_its_container():
    _, cluster = rehearse(topology("k2_2p1d"), RACK)

    assert cluster.nodes == 18
    assert cluster.slurm.partition == "batch"
    assert cluster.slurm.container is None


def test_a_cluster_of_other_hardware_lends_its_backend_only():
    other = RACK.model_copy(update={"hardware": "h100", "gpus_per_node": 8})
    _, cluster = rehearse(topology("k2_2p1d"), other)

    assert (cluster.backend, cluster.hardware, cluster.gpus_per_node) == (
        "slurm",
        "gb200",
        4,
    )
    assert cluster.slurm.gpus_by == "none"


def test_an_engine_that_nobody_plays_is_refused():
    engine = topology("k2_2p1d").engine.model_copy(update={"kind": "sglang"})

    with pytest.raises(SpecError, match="sglang"):
        rehearse(topology("k2_2p1d", engine=engine), LAPTOP)


def test_the_reference_engine_is_rehearsed_as_itself():
    played = plan("local_1p1d")

    assert played.name == "local_1p1d@rehearsal"
    assert "pytest_pd.reference" in played.services[0].argv


def test_dynamos_workers_are_played_behind_the_proxy():
    played = plan("dynamo_70b_8gpu")

    assert played.rehearsal
    assert played.services[-1].argv[2] == "pytest_pd.proxy"


def test_a_second_rehearsal_changes_nothing():
    once = rehearse(topology("k2_2p1d"), LAPTOP)

    assert rehearse(*once)[0].engine.kind == once[0].engine.kind
    assert is_rehearsal(once[0])


def test_the_literal_recipe_is_refused_with_both_ways_out():
    tp8 = topology("k2_2p1d_tp8")
    both = tp8.decode.model_copy(update={"dp_mode": "hybrid"})

    with pytest.raises(SpecError, match="headless") as caught:
        plan_deployment(tp8.model_copy(update={"decode": both}), RACK, roots=ROOTS)

    assert "dp=8" in str(caught.value)
