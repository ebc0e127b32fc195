"""Dynamo's workers and frontend: commands, discovery, readiness, refusals."""

import re

import pytest

from pytest_pd.engines.dynamo import Dynamo, workers_of
from pytest_pd.errors import SpecError
from pytest_pd.plan.model import Role
from pytest_pd.routers.dynamo import DynamoFrontend

DYNAMO = Dynamo()
FRONTEND = DynamoFrontend()
PD = {
    "kv_transfer": {"connector": "nixl"},
    "prefill": {},
    "decode": {},
    "router": {"kind": "dynamo"},
    "engine": {"kind": "dynamo"},
}
MOCK = {"hardware": "cpu", **PD}
READY = (
    '{"model":"m","ready":true,"namespaces":{"dynamo":{"ready":true,"worker_types":'
    '{"decode":{"workers":%d,"needs":[["prefill"]]},'
    '"prefill":{"workers":%d,"needs":[["decode"]]}}}}}'
)


def after(argv, flag: str) -> str:
    words = list(argv)
    return words[words.index(flag) + 1]


@pytest.fixture
def launched(make_topology, make_worker):
    """Return ``launched(role, **topology)`` -> Launch of a worker."""

    def make(role=Role.PREFILL, *, peers=None, **data):
        return DYNAMO.launch(make_worker(make_topology(**data), role, peers=peers))

    return make


def test_laptops_get_the_mocker_and_gpus_get_vllm(launched):
    assert launched(**MOCK).argv[:3] == ("dynamo-python", "-m", "dynamo.mocker")
    assert launched(**PD).argv[:3] == ("dynamo-python", "-m", "dynamo.vllm")


def test_backend_is_chosen_by_name(launched):
    engine = {"kind": "dynamo", "config": {"backend": "mocker"}}

    assert launched(**PD | {"engine": engine}).argv[2] == "dynamo.mocker"


@pytest.mark.parametrize(
    ("role", "mode"), [(Role.PREFILL, "prefill"), (Role.DECODE, "decode")]
)
def test_workers_know_their_phase(launched, role, mode):
    assert after(launched(role, **MOCK).argv, "--disaggregation-mode") == mode


def test_containers_bring_their_own_python(launched):
    engine = {"kind": "dynamo", "image": "nvcr.io/nvidia/ai-dynamo/vllm-runtime"}

    assert launched(**PD | {"engine": engine}).argv[0] == "python3"


def test_without_a_control_plane_the_run_directory_is_the_meeting_place(launched):
    env = launched(**MOCK).env

    assert env["DYN_DISCOVERY_BACKEND"] == "file"
    assert env["DYN_FILE_KV"] == "/runs/r1/dynamo"
    assert (env["DYN_REQUEST_PLANE"], env["DYN_EVENT_PLANE"]) == ("tcp", "zmq")


def test_control_plane_is_found_at_its_address(launched):
    env = launched(peers={"etcd": "10.0.0.9:2379", "nats": "10.0.0.9:4222"}, **MOCK).env

    assert env["DYN_DISCOVERY_BACKEND"] == "etcd"
    assert env["ETCD_ENDPOINTS"] == "http://10.0.0.9:2379"
    assert env["NATS_SERVER"] == "nats://10.0.0.9:4222"
    assert (env["DYN_REQUEST_PLANE"], env["DYN_EVENT_PLANE"]) == ("nats", "nats")
    assert "DYN_FILE_KV" not in env


def test_etcd_alone_leaves_requests_on_tcp(launched):
    env = launched(peers={"etcd": "10.0.0.9:2379"}, **MOCK).env

    assert (env["DYN_DISCOVERY_BACKEND"], env["DYN_REQUEST_PLANE"]) == ("etcd", "tcp")


def test_everything_listens_where_the_plan_says(launched):
    env = launched(**MOCK).env

    hosts = {name: env[name] for name in env if name.endswith("_HOST")}
    assert set(hosts.values()) == {"10.0.0.1"}
    assert len(hosts) == 5


def test_settings_of_the_shell_are_removed(launched):
    assert {"DYN_*", "ETCD_*", "NATS_*"} <= set(launched(**MOCK).env_unset)


def test_worker_health_is_not_unready_for_ever(launched):
    launch = launched(**MOCK)

    assert launch.env["DYN_SYSTEM_STARTING_HEALTH_STATUS"] == "ready"
    assert launch.env["DYN_SYSTEM_PORT"] == "8100"
    assert launch.ready.target == "http://10.0.0.1:8100/health"


def test_vllm_workers_have_nixl_side_channels(launched):
    launch = launched(Role.DECODE, **PD)

    assert launch.env["VLLM_NIXL_SIDE_CHANNEL_PORT"] == "5600"
    assert '"kv_role": "kv_consumer"' in after(launch.argv, "--kv-transfer-config")


def test_several_mockers_live_in_one_process(launched, make_topology):
    data = MOCK | {"prefill": {"config": {"num_workers": 64}}}

    assert after(launched(**data).argv, "--num-workers") == "64"
    assert workers_of(make_topology(**data).prefill) == 64
    assert DYNAMO.evidence(make_topology(**data)).requests == ""


def test_one_worker_per_process_counts_its_requests(make_topology):
    assert DYNAMO.evidence(make_topology(**MOCK)).requests


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"router": {"kind": "proxy"}}, "only its own frontend"),
        ({"prefill": {"tp": 2}}, "prefill.tp is 2; the mocker knows"),
        ({"prefill": {"config": {"workers": 2}}}, "did you mean 'num_workers'"),
        ({"prefill": {"args": ["--speedup-ratio", "0"]}}, "behaves as 1"),
        ({"engine": {"kind": "dynamo", "config": {"backend": "vlm"}}}, "'vlm'"),
    ],
    ids=["router", "tp", "config-key", "speedup", "backend"],
)
def test_what_the_mocker_cannot_do_is_refused(make_topology, change, message):
    with pytest.raises(SpecError) as caught:
        DYNAMO.check(make_topology(**MOCK | change))

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prefill": {"config": {"num_workers": 2}}}, "num_workers is the mocker's"),
        ({"prefill": {"dp": 4, "dp_mode": "hybrid"}}, "means nothing to it"),
    ],
)
def test_what_dynamo_on_gpus_cannot_do_is_refused(make_topology, change, message):
    with pytest.raises(SpecError, match=message):
        DYNAMO.check(make_topology(**PD | change))


def test_mocker_promises_no_true_tokens(make_topology):
    handover = DYNAMO.handover(make_topology(**MOCK))

    assert (handover.true_tokens, handover.transfer) == (False, "none")
    assert any("invents" in note for note in DYNAMO.check(make_topology(**MOCK)))


def frontend(make_topology, make_worker, **data):
    topology = make_topology(**data)
    return FRONTEND.launch(make_worker(topology, Role.PREFILL, http=8080), ())


@pytest.mark.parametrize(
    ("policy", "mode"),
    [(None, "round-robin"), ("kv", "kv"), ("least_loaded", "least-loaded")],
)
def test_policy_becomes_a_router_mode(make_topology, make_worker, policy, mode):
    data = MOCK | {"router": {"kind": "dynamo", "policy": policy}}

    launch = frontend(make_topology, make_worker, **data)

    assert after(launch.argv, "--router-mode") == mode


def test_unknown_policy_names_the_nearest(make_topology):
    data = MOCK | {"router": {"kind": "dynamo", "policy": "round_robbin"}}

    with pytest.raises(SpecError) as caught:
        FRONTEND.check(make_topology(**data))

    assert "did you mean 'round_robin'" in str(caught.value)


def test_frontend_refuses_foreign_workers(make_topology):
    with pytest.raises(SpecError, match="finds only Dynamo's workers"):
        FRONTEND.check(make_topology(**PD | {"engine": {"kind": "vllm"}}))


@pytest.mark.parametrize(
    ("decode", "prefill", "ready"),
    [(1, 2, True), (1, 1, False), (0, 2, False), (11, 2, False)],
)
def test_frontend_is_ready_when_it_knows_every_worker(
    make_topology, make_worker, decode, prefill, ready
):
    data = MOCK | {"prefill": {"replicas": 2}}

    body = frontend(make_topology, make_worker, **data).ready.body

    assert bool(re.search(body, READY % (decode, prefill), re.DOTALL)) is ready


def test_names_with_a_slash_are_one_part_of_the_url(make_topology, make_worker):
    data = MOCK | {"model": {"path": "/m", "served_name": "org/model"}}

    ready = frontend(make_topology, make_worker, **data).ready

    assert ready.target == "http://10.0.0.1:8080/v1/models/org%2Fmodel/ready"


def test_a_frozen_worker_does_not_hold_a_stream_for_ever(make_topology, make_worker):
    env = frontend(make_topology, make_worker, **MOCK).env

    assert int(env["DYN_HTTP_BACKEND_STREAM_TIMEOUT_SECS"]) > 0


KV_LINES = (
    '{"message":"Selected worker","request_id":"a","router_mode":"kv",'
    '"worker_id":11,"worker_type":"prefill"}\n'
    '{"message":"Selected worker","request_id":"a","router_mode":"kv",'
    '"worker_id":22,"worker_type":"decode"}\n'
)
OTHER_LINES = (
    '{"message":"Selected worker","router_mode":"round-robin","worker_id":11}\n'
    '{"message":"Selected worker","router_mode":"round-robin","worker_id":22}\n'
)


def test_log_of_the_kv_router_tells_phases(make_topology):
    from pytest_pd.probe.named import named_in_log

    data = MOCK | {"router": {"kind": "dynamo", "policy": "kv"}}
    witness = FRONTEND.witness(make_topology(**data))

    assert named_in_log(witness, KV_LINES) == {"prefill": ["11"], "decode": ["22"]}


def test_log_of_other_modes_names_workers_only(make_topology):
    from pytest_pd.probe.named import named_in_log

    witness = FRONTEND.witness(make_topology(**MOCK))

    assert named_in_log(witness, OTHER_LINES) == {"worker": ["11", "22"]}
