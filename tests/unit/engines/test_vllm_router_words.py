"""vllm-router: its command line, and how its word is read."""

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.plan.model import Endpoint, Role
from pytest_pd.probe.named import named_in, named_in_log, names_workers
from pytest_pd.routers.vllm_router import WITNESS, VllmRouter

ROUTER = VllmRouter()
PD = {
    "kv_transfer": {"connector": "nixl"},
    "prefill": {},
    "decode": {},
    "router": {"kind": "vllm_router"},
}
ID = (
    "cmpl-___prefill_addr_127.0.0.1:8311___decode_addr_127.0.0.1:8312_"
    "02c8eab1d6c44cbd8b3d9c6f0d3c6d3f"
)
LOG = (
    "2026-11-21 09:29:55 DEBUG vllm_router_rs::routers::http::vllm_pd_router: "
    "src/routers/http/vllm_pd_router.rs:3054: Transparent proxy: "
    "prefill=http://127.0.0.1:8121@1, decode=http://127.0.0.1:8122@0\n"
)


def url(role: Role, number: int, ranks: int = 0) -> Endpoint:
    port = {Role.PREFILL: 8100, Role.DECODE: 8200, Role.AGGREGATED: 8300}[role] + number
    return Endpoint(f"{role}-{number}", role, f"http://h:{port}", tuple(range(ranks)))


@pytest.fixture
def argv(make_topology, make_worker):
    """Return ``argv(endpoints, **topology)`` -> command line of the router."""

    def make(endpoints, **data):
        topology = make_topology(**PD | data)
        worker = make_worker(topology, Role.PREFILL, http=8000, metrics=29000)
        return ROUTER.launch(worker, endpoints).argv

    return make


def values(argv, flag: str) -> list[str]:
    words = list(argv)
    return [
        words[index + 1]
        for index, word in enumerate(words[:-1])
        if word == flag and not words[index + 1].startswith("--")
    ]


def test_each_worker_is_named_with_its_phase(argv):
    words = argv([url(Role.PREFILL, 0), url(Role.PREFILL, 1), url(Role.DECODE, 0)])

    assert "--vllm-pd-disaggregation" in words
    assert values(words, "--prefill") == ["http://h:8100", "http://h:8101"]
    assert values(words, "--decode") == ["http://h:8200"]


def test_aggregated_workers_are_a_plain_list(make_topology, make_worker):
    topology = make_topology(router={"kind": "vllm_router"})
    worker = make_worker(topology, http=8000, metrics=29000)

    words = ROUTER.launch(
        worker, [url(Role.AGGREGATED, 0), url(Role.AGGREGATED, 1)]
    ).argv

    at = words.index("--worker-urls")
    assert words[at + 1 : at + 3] == ("http://h:8300", "http://h:8301")
    assert "--vllm-pd-disaggregation" not in words


def test_ranks_behind_a_url_are_addressed(argv):
    words = argv([url(Role.PREFILL, 0, 4), url(Role.DECODE, 0, 4)])

    assert values(words, "--intra-node-data-parallel-size") == ["4"]
    assert values(words, "--api-key") == ["none"]


def test_one_rank_needs_no_key(argv):
    assert "--api-key" not in argv([url(Role.PREFILL, 0), url(Role.DECODE, 0)])


def test_different_numbers_of_ranks_are_refused(argv):
    with pytest.raises(SpecError, match=r"prefill-0: 4, decode-0: 1"):
        argv([url(Role.PREFILL, 0, 4), url(Role.DECODE, 0)])


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (None, "consistent_hash"),
        ("round_robin", "round_robin"),
        ("least_loaded", "sticky_least_loaded"),
        ("kv", "kv_aware"),
    ],
)
def test_neutral_policies_are_translated(argv, policy, said):
    words = argv(
        [url(Role.PREFILL, 0), url(Role.DECODE, 0)],
        router={"kind": "vllm_router", "policy": policy},
    )

    assert values(words, "--policy") == [said]


def test_unknown_policy_is_refused(make_topology):
    topology = make_topology(**PD | {"router": {"kind": "vllm_router", "policy": "x"}})

    with pytest.raises(SpecError, match=r"router\.policy 'x'"):
        ROUTER.check(topology)


def test_files_instead_of_nixl_are_noted(make_topology):
    data = PD | {"kv_transfer": {"connector": "shared_storage", "path": "/kv"}}

    assert any("two stages" in note for note in ROUTER.check(make_topology(**data)))
    assert ROUTER.check(make_topology(**PD)) == ()


def test_readiness_asks_for_all_workers(make_topology, make_worker):
    worker = make_worker(make_topology(**PD), Role.PREFILL, http=8000, metrics=29000)

    launch = ROUTER.launch(worker, [url(Role.PREFILL, 0), url(Role.DECODE, 0)])

    assert launch.ready.target == "http://10.0.0.1:8000/readiness"
    assert launch.metrics_port == "metrics"


def test_response_id_names_both_workers():
    assert names_workers(WITNESS)
    assert named_in(WITNESS, {}, {"id": ID}) == ("127.0.0.1:8311", "127.0.0.1:8312")


def test_an_ordinary_id_names_nobody():
    assert named_in(WITNESS, {}, {"id": "cmpl-0123456789abcdef"}) is None


def test_log_names_both_workers_with_their_ranks():
    assert named_in_log(WITNESS, LOG + LOG) == {
        "prefill": ["http://127.0.0.1:8121@1"] * 2,
        "decode": ["http://127.0.0.1:8122@0"] * 2,
    }


@pytest.mark.parametrize(
    ("args", "seconds"),
    [
        ([], 20.0),
        (["--health-check-interval-secs", "1"], 4.0),
        (["--health-failure-threshold=1", "--health-check-interval-secs=2"], 4.0),
    ],
)
def test_a_death_is_settled_after_the_failed_checks_that_it_takes(
    make_topology, args, seconds
):
    router = {"kind": "vllm_router", "args": args}

    assert ROUTER.witness(make_topology(**PD | {"router": router})).settles_s == seconds
