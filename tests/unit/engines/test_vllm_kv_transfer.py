"""--kv-transfer-config: connector names by release, roles, what is left out."""

import json

import pytest

from pytest_pd.engines import version
from pytest_pd.engines.vllm import Vllm
from pytest_pd.errors import SpecError
from pytest_pd.plan.model import Role

VLLM = Vllm()
PD = {"prefill": {}, "decode": {}, "router": {"kind": "proxy"}}
GUIDE = {
    "engine_id": "my-disagg-engine-1",
    "kv_parallel_size": 1,
    "kv_buffer_size": 1e9,
}


def config_of(launch) -> dict:
    words = list(launch.argv)
    return json.loads(words[words.index("--kv-transfer-config") + 1])


@pytest.fixture
def launched(make_topology, make_worker):
    """Return ``launched(kv_transfer, role, **engine)`` -> Launch."""

    def make(kv_transfer, role=Role.PREFILL, *, hardware="h100", pool=None, **engine):
        topology = make_topology(
            hardware=hardware,
            engine={"kind": "vllm", **engine},
            kv_transfer=kv_transfer,
            prefill=pool or {},
            decode=pool or {},
            router={"kind": "proxy"},
        )
        return VLLM.launch(make_worker(topology, role))

    return make


@pytest.mark.parametrize("asked", ["shared_storage", "SharedStorageConnector"])
@pytest.mark.parametrize(
    ("release", "name"),
    [
        ("0.11.0", "SharedStorageConnector"),
        ("0.12.0", "SharedStorageConnector"),
        ("0.13.0", "ExampleConnector"),
        ("0.32.0+cpu", "ExampleConnector"),
    ],
)
def test_shared_storage_is_called_as_the_release_calls_it(
    launched, asked, release, name
):
    launch = launched({"connector": asked, "path": "/kv"}, version=release)

    assert config_of(launch)["kv_connector"] == name


def test_guide_of_an_old_release_is_passed_on_whole(launched):
    launch = launched(
        {"connector": "shared_storage", "path": "/mnt/pd_kv", "config": GUIDE},
        version="0.11.0",
    )

    assert config_of(launch) == {
        "kv_connector": "SharedStorageConnector",
        "kv_role": "kv_producer",
        **GUIDE,
        "kv_connector_extra_config": {"shared_storage_path": "/mnt/pd_kv"},
    }


def test_keys_that_a_release_refuses_are_left_out_and_named(make_topology, launched):
    transfer = {"connector": "shared_storage", "path": "/kv", "config": GUIDE}

    found = config_of(launched(transfer, version="0.32.0"))
    notes = VLLM.check(make_topology(kv_transfer=transfer, **PD))

    assert found["engine_id"] == "my-disagg-engine-1"
    assert not {"kv_buffer_size", "kv_parallel_size"} & found.keys()
    assert any("kv_buffer_size, kv_parallel_size" in note for note in notes)


def test_roles_are_producer_and_consumer(launched):
    transfer = {"connector": "nixl"}

    assert config_of(launched(transfer, Role.PREFILL))["kv_role"] == "kv_producer"
    assert config_of(launched(transfer, Role.DECODE))["kv_role"] == "kv_consumer"


def test_a_pool_may_take_both_roles(launched):
    launch = launched({"connector": "nixl"}, pool={"kv_role": "both"})

    assert config_of(launch)["kv_role"] == "kv_both"


def test_nixl_on_cpu_is_told_where_kv_lies(launched):
    launch = launched({"connector": "nixl"}, hardware="cpu")

    assert config_of(launch)["kv_buffer_device"] == "cpu"
    assert config_of(launch)["kv_connector_extra_config"] == {"backends": ["UCX"]}


def test_nixl_on_gpu_is_left_to_its_defaults(launched):
    assert config_of(launched({"connector": "nixl"})) == {
        "kv_connector": "NixlConnector",
        "kv_role": "kv_producer",
    }


def test_side_channel_is_this_process_and_its_port(launched):
    env = launched({"connector": "nixl"}).env

    assert env["VLLM_NIXL_SIDE_CHANNEL_HOST"] == "10.0.0.1"
    assert env["VLLM_NIXL_SIDE_CHANNEL_PORT"] == "5600"


def test_shared_storage_needs_no_side_channel(launched):
    env = launched({"connector": "shared_storage", "path": "/kv"}).env

    assert not [name for name in env if "NIXL" in name]


def test_other_connectors_pass_by_name_with_their_settings(launched):
    launch = launched(
        {
            "connector": "LMCacheConnectorV1",
            "config": {"kv_connector_extra_config": {"a": 1}},
        }
    )

    assert config_of(launch)["kv_connector"] == "LMCacheConnectorV1"
    assert config_of(launch)["kv_connector_extra_config"] == {"a": 1}


def test_composite_connector_lists_its_members_in_order(launched):
    launch = launched(
        {
            "connector": "MultiConnector",
            "connectors": [{"connector": "nixl"}, {"connector": "OffloadingConnector"}],
        }
    )

    members = config_of(launch)["kv_connector_extra_config"]["connectors"]
    assert [m["kv_connector"] for m in members] == [
        "NixlConnector",
        "OffloadingConnector",
    ]
    assert "VLLM_NIXL_SIDE_CHANNEL_PORT" in launch.env


def test_aggregated_workers_have_no_transfer(make_topology, make_worker):
    launch = VLLM.launch(make_worker(make_topology()))

    assert "--kv-transfer-config" not in launch.argv


@pytest.mark.parametrize(
    ("transfer", "message"),
    [
        ({"connector": "shared_storage"}, "needs kv_transfer.path"),
        ({"connector": "nixl", "config": {"engine_id": "x"}}, "same NIXL engine id"),
        ({"connector": "nixl", "buffer_tokens": 8}, "buffer_tokens means nothing"),
        ({"connector": "nixl", "timeout_ms": 8}, "timeout_ms means nothing"),
    ],
    ids=["no-path", "engine-id", "buffer", "timeout"],
)
def test_settings_that_cannot_work_are_refused(make_topology, transfer, message):
    with pytest.raises(SpecError, match=message):
        VLLM.check(make_topology(kv_transfer=transfer, **PD))


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0.32.0", (0, 32, 0)), ("v0.9", (0, 9)), ("1.3.0rc18", (1, 3, 0))],
)
def test_versions_are_read_as_engines_print_them(text, numbers):
    assert version.parse(text) == numbers


def test_a_word_is_no_version(make_topology):
    topology = make_topology(engine={"kind": "vllm", "version": "latest"})

    with pytest.raises(SpecError, match="'latest' is not a version"):
        VLLM.check(topology)
