"""From two files to a plan: engine, router and model are looked up."""

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.plan.model import KvShape
from pytest_pd.provision.compose import (
    fitting,
    is_assumed,
    kv_dtype,
    kv_shape,
    plan_deployment,
    read_kv_shape,
    workloads_of,
)
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.topology import TopologySpec

LOCAL = ClusterSpec(name="local")
LLAMA = {"num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096}


def topology(**changes: Any) -> TopologySpec:
    return TopologySpec.model_validate(
        {
            "name": "t",
            "hardware": "cpu",
            "model": {"path": "org/model", "served_name": "m"},
            "engine": {"kind": "reference"},
            "aggregated": {},
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("changes", "fact", "near"),
    [
        (
            {"engine": {"kind": "refrence"}},
            "engine 'refrence' is not known",
            "reference",
        ),
        ({"router": {"kind": "proxi"}}, "router 'proxi' is not known", "proxy"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(
    changes: dict[str, Any], fact: str, near: str
) -> None:
    with pytest.raises(SpecError, match=fact) as caught:
        plan_deployment(topology(**changes), LOCAL)

    assert f"did you mean '{near}'?" in caught.value.hint


def test_a_model_folder_that_is_not_there_is_refused() -> None:
    spec = topology(model={"path": "fixtures/models/absent", "served_name": "m"})

    with pytest.raises(SpecError, match="'fixtures/models/absent' does not exist"):
        plan_deployment(spec, LOCAL)


def test_a_hub_name_is_left_as_it_is() -> None:
    plan = plan_deployment(topology(), LOCAL)

    assert plan.model_path == "org/model"
    assert plan.expected.kv is None


def test_an_alias_is_looked_up_in_the_cluster() -> None:
    spec = topology(model={"ref": "big", "served_name": "m"})
    cluster = ClusterSpec(name="c", models={"big": "/weights/big"})

    assert plan_deployment(spec, cluster).model_path == "/weights/big"
    with pytest.raises(SpecError, match="cluster 'local': model 'big' is not known"):
        plan_deployment(spec, LOCAL)


def test_a_local_folder_gives_its_shape(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps(LLAMA | {"torch_dtype": "bfloat16"})
    )
    spec = topology(model={"path": str(tmp_path), "served_name": "m"})

    assert plan_deployment(spec, LOCAL).expected.kv == KvShape(32, 32, 128, 2)


HALF = KvShape(32, 32, 128, 2)
FP8_KV = {"quantization_config": {"kv_cache_scheme": {"num_bits": 8, "type": "float"}}}


@pytest.mark.parametrize(
    ("config", "dtype", "found"),
    [
        (LLAMA, None, None),
        (LLAMA | {"torch_dtype": "float32"}, None, None),
        (LLAMA, "float32", KvShape(32, 32, 128, 4)),
        (LLAMA | {"torch_dtype": "bfloat16"}, None, KvShape(32, 32, 128, 2)),
        (LLAMA | {"torch_dtype": "bfloat16"}, "fp8", KvShape(32, 32, 128, 1)),
        (LLAMA | {"num_key_value_heads": 8}, "half", KvShape(32, 8, 128, 2)),
        (LLAMA | {"head_dim": 64}, "half", KvShape(32, 32, 64, 2)),
        ({"text_config": LLAMA}, "half", KvShape(32, 32, 128, 2)),
        (LLAMA, "int3", None),
        (LLAMA | {"layer_types": ["full_attention"] * 32}, "half", HALF),
        (
            LLAMA | {"layer_types": ["full_attention", "sliding_attention"]},
            "half",
            None,
        ),
        (LLAMA | {"quantization_config": {"quant_method": "fp8"}}, "half", HALF),
        (LLAMA | {"quantization_config": {"kv_cache_scheme": None}}, "half", HALF),
        (LLAMA | FP8_KV, "half", None),
        (LLAMA | FP8_KV, "fp8", KvShape(32, 32, 128, 1)),
        ({"model_type": "mamba"}, None, None),
    ],
)
def test_kv_shapes(config: dict[str, Any], dtype: str | None, found: object) -> None:
    assert kv_shape(config, dtype) == found


def test_latent_attention_keeps_one_vector_per_layer() -> None:
    config = {
        "num_hidden_layers": 61,
        "num_attention_heads": 64,
        "kv_lora_rank": 512,
        "qk_rope_head_dim": 64,
    }
    shape = kv_shape(config, "bfloat16")

    assert shape is not None
    assert shape.bytes_per_token == 61 * (512 + 64) * 2


@pytest.mark.parametrize("text", ["", "[1]", "{"])
def test_a_config_that_is_none_has_no_shape(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)

    assert read_kv_shape(tmp_path, None) is None


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, None),
        ({"aggregated": {"kv_cache_dtype": "fp8"}}, "fp8"),
        ({"aggregated": {"args": ["--kv-cache-dtype", "fp8"]}}, "fp8"),
        ({"aggregated": {"args": ["--dtype=float32"]}}, "float32"),
        ({"aggregated": {"args": ["--dtype", "half", "--kv-cache-dtype=fp8"]}}, "fp8"),
        ({"aggregated": {"args": ["--kv-cache-dtype", "auto"]}}, None),
        ({"aggregated": {"args": ["--dtype"]}}, None),
        ({"engine": {"kind": "reference", "args": ["--dtype", "half"]}}, "half"),
    ],
)
def test_the_type_of_kv_is_what_the_arguments_say(
    changes: dict[str, Any], found: str | None
) -> None:
    assert kv_dtype(topology(**changes)) == found


@pytest.mark.parametrize(
    ("hardware", "gpus"), [("gb200", 4), ("gb300", 4), ("h100", 8), ("mi300x", 8)]
)
def test_hardware_that_is_not_there_is_assumed_for_reading(
    hardware: str, gpus: int
) -> None:
    spec = topology(hardware=hardware, model={"ref": "big", "served_name": "m"})

    plan = plan_deployment(spec, LOCAL)

    assert plan.assumed
    assert plan.hardware == hardware
    assert plan.nodes[0].gpus == gpus
    assert plan.notes[0].startswith(f"Planned for {hardware} nodes of {gpus} GPUs")


def test_a_topology_can_say_what_its_nodes_have() -> None:
    spec = topology(
        hardware="h100", placement={"gpus_per_node": 2}, aggregated={"tp": 4}
    )

    assert len(plan_deployment(spec, LOCAL).nodes) == 2


def test_a_topology_for_cpus_leaves_gpus_alone() -> None:
    cluster = ClusterSpec(name="c", hardware="h100", nodes=2, gpus_per_node=8)

    plan = plan_deployment(topology(), cluster)

    assert (plan.gpus, plan.gpus_held, plan.hardware) == (0, 0, "cpu")
    assert not plan.assumed


def test_one_of_several_kinds_is_enough() -> None:
    cluster = ClusterSpec(name="c", hardware="h200", nodes=1, gpus_per_node=8)
    spec = topology(hardware=["h100", "h200"])

    assert fitting(spec, cluster) is cluster
    assert not is_assumed(cluster)
    assert plan_deployment(spec, cluster).hardware == "h200"


def test_workloads_are_read_and_held_against_the_limits() -> None:
    own = {"name": "w", "input_tokens": 100, "concurrency": [1]}
    spec = topology(
        workloads=["local_sweep", own], aggregated={"args": ["--max-model-len", 110]}
    )

    assert [w.name for w in workloads_of(spec)] == ["local_sweep", "w"]
    with pytest.raises(SpecError, match="takes --max-model-len 110"):
        plan_deployment(spec, LOCAL)


def test_an_unknown_workload_is_refused_when_planned() -> None:
    with pytest.raises(SpecError, match="workload 'local_swep' is not known"):
        plan_deployment(topology(workloads=["local_swep"]), LOCAL)


def test_a_quantization_of_the_kv_may_stand_in_a_file_of_its_own(
    tmp_path: Path,
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    file = tmp_path / "hf_quant_config.json"

    file.write_text(json.dumps({"quantization": {"quant_algo": "NVFP4"}}))
    assert read_kv_shape(tmp_path, "half") == HALF
    file.write_text(json.dumps({"quantization": {"kv_cache_quant_algo": "FP8"}}))
    assert read_kv_shape(tmp_path, "half") is None
