"""The reference engine's command lines, judged by the program they start."""

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_pd.engines.reference import Reference
from pytest_pd.errors import SpecError
from pytest_pd.plan.build import make_plan
from pytest_pd.plan.model import DeploymentPlan, Role, ServicePlan, SiteFacts
from pytest_pd.reference import flags
from pytest_pd.reference.settings import Settings, read_settings
from pytest_pd.routers.proxy import Proxy
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.topology import TopologySpec

TINY = Path(__file__).parents[3] / "fixtures" / "models" / "tiny"
SITE = SiteFacts(run_dir="/r", addresses={"node0": "127.0.0.1", "node1": "127.0.0.2"})


def plan(nodes: int = 2, **changes: Any) -> DeploymentPlan:
    data: dict[str, Any] = {
        "name": "t",
        "hardware": "cpu",
        "model": {"path": str(TINY), "served_name": "tiny"},
        "engine": {"kind": "reference"},
        "kv_transfer": {"connector": "pull"},
        "router": {"kind": "proxy"},
    }
    if "aggregated" not in changes:
        data |= {"prefill": {}, "decode": {}}
    topology = TopologySpec.model_validate(data | changes)
    cluster = ClusterSpec(name="c", nodes=nodes)
    return make_plan(topology, cluster, Reference(), Proxy(), SITE)


def judged(service: ServicePlan) -> Settings:
    """What the engine makes of the command and environment of a service."""
    assert service.argv[:4] == ("python3", "-m", "pytest_pd.reference", "serve")
    return read_settings(flags.parse(service.argv[4:]), service.env)


def test_the_engine_takes_its_command_line() -> None:
    settings = judged(plan().service("prefill-0"))

    assert (settings.host, settings.port) == ("127.0.0.1", 8100)
    assert settings.names == ("tiny",)
    assert settings.folder == TINY
    assert settings.block_size == 16


@pytest.mark.parametrize(
    ("changes", "block"),
    [({}, 16), ({"engine": {"kind": "reference", "block_tokens": 32}}, 32)],
)
def test_blocks_are_what_the_evidence_expects(
    changes: dict[str, Any], block: int
) -> None:
    made = plan(**changes)

    assert judged(made.service("decode-0")).block_size == block
    assert made.expected.block_tokens == block


def test_shared_storage_names_the_folder_on_both_sides() -> None:
    made = plan(kv_transfer={"connector": "shared_storage", "path": "{run_dir}/kv"})
    argv = [made.service(name).argv for name in ("prefill-0", "decode-0")]
    configs = [json.loads(a[a.index("--kv-transfer-config") + 1]) for a in argv]

    assert [c["kv_role"] for c in configs] == ["kv_producer", "kv_consumer"]
    assert {c["kv_connector"] for c in configs} == {"ExampleConnector"}
    assert {c["kv_connector_extra_config"]["shared_storage_path"] for c in configs} == {
        "/r/kv"
    }
    assert made.expected.whole_blocks
    assert judged(made.service("prefill-0")).kv_transfer is not None


@pytest.mark.parametrize("connector", ["tcp", "pull", "nixl", "NixlConnector"])
def test_a_pull_has_a_side_channel_of_its_own(connector: str) -> None:
    made = plan(nodes=1, kv_transfer={"connector": connector})
    prefill, decode = made.service("prefill-0"), made.service("decode-0")

    assert prefill.env["VLLM_NIXL_SIDE_CHANNEL_HOST"] == "127.0.0.1"
    assert prefill.env["VLLM_NIXL_SIDE_CHANNEL_PORT"] == "5600"
    assert decode.env["VLLM_NIXL_SIDE_CHANNEL_PORT"] == "5601"
    assert made.expected.transfer == "pull"
    assert not made.expected.whole_blocks


def test_an_aggregated_worker_has_no_connector() -> None:
    service = plan(aggregated={}).service("aggregated-0")

    assert judged(service).kv_transfer is None
    assert "VLLM_NIXL_SIDE_CHANNEL_PORT" not in service.env


def test_faults_of_engine_and_pool_reach_the_process() -> None:
    made = plan(
        engine={"kind": "reference", "faults": [{"kind": "http_error", "after": 3}]},
        prefill={},
        decode={"faults": [{"kind": "silent_recompute"}]},
    )

    assert [f.kind for f in judged(made.service("prefill-0")).faults] == ["http_error"]
    assert [f.kind for f in judged(made.service("decode-0")).faults] == [
        "http_error",
        "silent_recompute",
    ]


def test_settings_with_a_name_become_flags() -> None:
    made = plan(
        prefill={"prefix_caching": False, "kv_cache_dtype": "float16"}, decode={}
    )

    assert not judged(made.service("prefill-0")).caching
    assert judged(made.service("decode-0")).caching


def test_arguments_of_the_role_come_last_and_win() -> None:
    made = plan(
        engine={"kind": "reference", "args": ["--max-model-len", 512]},
        prefill={"args": ["--max-model-len", 256]},
        decode={},
    )

    assert judged(made.service("prefill-0")).max_model_len == 256
    assert judged(made.service("decode-0")).max_model_len == 512


def test_hybrid_ranks_are_the_processes_own() -> None:
    made = plan(aggregated={"dp": 4, "nodes_per_replica": 2, "dp_mode": "hybrid"})
    workers = [s for s in made.services if s.role is Role.AGGREGATED]

    assert [judged(service).parallel.ranks for service in workers] == [(0, 1), (2, 3)]
    assert [e.ranks for e in made.of_role(Role.AGGREGATED)] == [(0, 1), (2, 3)]


def test_a_follower_is_headless_and_has_no_endpoint() -> None:
    made = plan(aggregated={"tp": 2, "nodes_per_replica": 2}, router=None)
    head, follower = made.services

    assert judged(follower).parallel.headless
    assert not judged(head).parallel.headless
    assert follower.ready.kind == "started"
    assert [e.service for e in made.endpoints] == ["aggregated-0-0"]


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        (
            {"kv_transfer": {"connector": "mooncake"}},
            "connector 'mooncake' is not known",
        ),
        ({"kv_transfer": {"connector": "shared_storage"}}, "needs kv_transfer.path"),
        ({"aggregated": {"tp": 8, "dp_mode": "hybrid"}}, "hybrid with dp=1 cannot run"),
    ],
)
def test_what_it_cannot_do_is_refused(changes: dict[str, Any], fact: str) -> None:
    with pytest.raises(SpecError) as caught:
        plan(**changes)

    assert fact in caught.value.fact


def test_what_it_ignores_is_said() -> None:
    made = plan(prefill={"moe": {"backend": "x"}, "config": {"a": 1}}, decode={})

    assert "prefill.moe, config: the reference engine has no such thing." in made.notes


def test_evidence_has_transfer_names_only_where_bytes_are_counted() -> None:
    spec = TopologySpec.model_validate(
        {
            "name": "t",
            "hardware": "cpu",
            "model": {"path": "m", "served_name": "m"},
            "engine": {"kind": "reference"},
            "kv_transfer": {"connector": "shared_storage", "path": "/kv"},
            "prefill": {},
            "decode": {},
        }
    )
    pull = spec.model_copy(
        update={
            "kv_transfer": spec.kv_transfer.model_copy(update={"connector": "pull"})
        }
    )

    assert Reference().evidence(spec).transferred_bytes == ""
    assert Reference().evidence(spec).log_hit == "External Cache Hit!"
    assert Reference().evidence(pull).transferred_bytes.startswith("vllm:nixl_bytes")
    assert Reference().evidence(pull).log_hit == ""
