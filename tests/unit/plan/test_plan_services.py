"""Commands, environments, logs, order, endpoints of the services of a plan."""

from collections.abc import Callable
from typing import Any

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.plan.model import DeploymentPlan, Role, SiteFacts

Plan = Callable[..., DeploymentPlan]
AT = SiteFacts(
    run_dir="/runs/7", run_id="r7", addresses={"node0": "10.0.0.1", "node1": "10.0.0.2"}
)


def test_urls_use_addresses_and_the_router_is_the_door(plan: Plan) -> None:
    deployment = plan(site=AT, prefill={"tp": 8}, decode={"tp": 8})

    assert deployment.url == "http://10.0.0.1:8000"
    assert deployment.service("router").argv == (
        "route",
        "http://10.0.0.1:8100",
        "http://10.0.0.2:8100",
    )
    assert (
        deployment.of_role(Role.ROUTER)[0].metrics_url
        == "http://10.0.0.1:29000/metrics"
    )


def test_without_a_router_the_only_worker_is_the_door(plan: Plan) -> None:
    deployment = plan(aggregated={}, router=None)

    assert deployment.url == "http://node0:8100"
    assert deployment.router == ""


def test_the_environment_is_merged_from_engine_to_node(plan: Plan) -> None:
    deployment = plan(
        nodes=1,
        gpus=0,
        engine={
            "kind": "plain",
            "env": {"A": "engine", "B": "engine", "FROM": "engine"},
        },
        prefill={"env": {"B": "role", "C": "role", "D": "role"}},
        decode={},
        cluster={
            "env": {"C": "cluster", "D": "cluster"},
            "node_env": {"node0": {"D": "node"}},
        },
    )
    service = deployment.service("prefill-0")

    assert service.env == {
        "FROM": "engine",
        "LAUNCH": "1",
        "A": "engine",
        "B": "role",
        "C": "cluster",
        "D": "node",
    }
    assert service.env_source == {
        "FROM": "engine.env",
        "LAUNCH": "plan",
        "A": "engine.env",
        "B": "prefill.env",
        "C": "cluster c",
        "D": "node node0",
    }


def test_an_engines_environment_is_not_the_routers(plan: Plan) -> None:
    deployment = plan(
        engine={"kind": "plain", "env": {"A": "1"}},
        router={"kind": "plain", "env": {"B": "2"}},
    )

    assert dict(deployment.service("router").env) == {"B": "2"}


def test_secrets_are_passed_on_by_name(plan: Plan) -> None:
    deployment = plan(
        engine={"kind": "plain", "env_from_host": ["HF_TOKEN"]},
        prefill={"env_from_host": ["HF_TOKEN", "OTHER"]},
        decode={},
    )

    assert deployment.service("prefill-0").env_from_host == ("HF_TOKEN", "OTHER")
    assert deployment.service("router").env_from_host == ()


@pytest.mark.parametrize(
    ("cluster", "pool", "found"),
    [
        ({}, {"tp": 2}, {"CUDA_VISIBLE_DEVICES": "0,1"}),
        (
            {},
            {"tp": 2, "visible_gpus": "node"},
            {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"},
        ),
        ({"hardware": "mi300x"}, {"tp": 2}, {"HIP_VISIBLE_DEVICES": "0,1"}),
        ({"backend": "kubernetes"}, {"tp": 2}, {}),
    ],
)
def test_a_process_sees_its_gpus(
    plan: Plan, cluster: dict[str, Any], pool: dict[str, Any], found: dict[str, str]
) -> None:
    deployment = plan(cluster=cluster, aggregated=pool, router=None)
    env = deployment.services[0].env

    assert {k: v for k, v in env.items() if k.endswith("DEVICES")} == found


def test_own_gpus_come_first_where_all_are_visible(plan: Plan) -> None:
    deployment = plan(
        aggregated={"workers": [{"gpus": [6]}], "visible_gpus": "node"}, router=None
    )

    assert deployment.services[0].env["CUDA_VISIBLE_DEVICES"] == "6,0,1,2,3,4,5,7"


def test_placeholders_are_filled_everywhere(plan: Plan, engine: Any) -> None:
    deployment = plan(
        site=AT,
        engine={"kind": "plain", "args": ["--cache", "{run_dir}/{node}"]},
        kv_transfer={
            "connector": "x",
            "path": "{run_dir}/kv",
            "config": {"n": ["{run_id}"]},
        },
        prefill={
            "args": ["--me", "{name}@{node_ip}:{port:http}"],
            "env": {"R": "{replica}"},
        },
        decode={},
    )
    service = deployment.service("prefill-0")

    assert service.argv == (
        *("serve", "--cache", "/runs/7/node0"),
        *("--me", "prefill-0@10.0.0.1:8100"),
    )
    assert service.env["R"] == "0"
    transfer = engine.launched[0].topology.kv_transfer
    assert (transfer.path, transfer.config) == ("/runs/7/kv", {"n": ["r7"]})


def test_an_unknown_placeholder_is_refused_with_the_list(plan: Plan) -> None:
    with pytest.raises(SpecError, match=r"prefill-0: \{pod_ip\} is no known") as caught:
        plan(prefill={"args": ["--at", "{pod_ip}"]}, decode={})

    assert "{node_ip}" in caught.value.hint


def test_a_port_of_another_purpose_is_an_unknown_placeholder(plan: Plan) -> None:
    with pytest.raises(SpecError, match=r"\{port:grpc\} is no known"):
        plan(decode={"args": ["{port:grpc}"]}, prefill={})


@pytest.mark.parametrize(
    "word", ["<model_path>", "--model=<YOUR MODEL>", "<Your-Token>"]
)
def test_what_a_recipe_left_open_is_refused(plan: Plan, word: str) -> None:
    with pytest.raises(SpecError, match="was never filled in"):
        plan(prefill={"args": [word]}, decode={})


@pytest.mark.parametrize("word", ["<think>", "a<B_c>d", "{{node}}", '{"a":{"b":1}}'])
def test_words_that_only_look_open_are_left_alone(plan: Plan, word: str) -> None:
    deployment = plan(prefill={"args": [word]}, decode={})

    assert deployment.service("prefill-0").argv[-1] == word.replace(
        "{{node}}", "{node}"
    )


def test_every_service_logs_to_its_own_file(plan: Plan) -> None:
    deployment = plan(
        prefill={"replicas": 2, "log": "logs/p{replica}-{node}.log"}, decode={}
    )

    assert [s.log for s in deployment.services] == [
        "logs/p0-node0.log",
        "logs/p1-node0.log",
        "logs/decode-0.log",
        "logs/router.log",
    ]


def test_two_roles_with_one_log_are_refused(plan: Plan) -> None:
    with pytest.raises(SpecError) as caught:
        plan(prefill={"log": "worker-4.log"}, decode={"log": "worker-4.log"})

    assert caught.value.fact == "decode-0 and prefill-0 both log to 'worker-4.log'."


def test_workers_start_together_and_the_router_waits_as_it_says(plan: Plan) -> None:
    deployment = plan(prefill={"replicas": 2}, decode={"replicas": 2})

    assert deployment.service("prefill-0").after == ()
    assert deployment.service("decode-0").after == ()
    assert deployment.service("router").after == ("decode-0", "decode-1")


def test_budgets_of_the_file_replace_the_engines(plan: Plan) -> None:
    ready = plan(budgets={"ready_s": 7, "stall_s": 3}).services[0].ready

    assert (ready.budget_s, ready.stall_s) == (7, 3)
    assert plan().services[0].ready.budget_s == 100


def test_images_are_looked_up_by_alias(plan: Plan) -> None:
    deployment = plan(
        cluster={"images": {"stable": "registry/vllm@sha256:1"}},
        engine={"kind": "plain", "image": "stable"},
        prefill={},
        decode={"image": "own:1"},
    )

    assert deployment.service("prefill-0").image == "registry/vllm@sha256:1"
    assert deployment.service("decode-0").image == "own:1"


def test_resources_reach_the_service(plan: Plan) -> None:
    service = plan(
        prefill={
            "resources": {"cpu": 21.5, "memory_gib": 100, "shm_gib": 80},
            "rdma_devices": 4,
            "mounts": ["/a:/a"],
            "stop_grace_s": 30,
        },
        decode={},
    ).service("prefill-0")

    assert (service.cpus, service.memory_gib, service.shm_gib) == (22, 100, 80)
    assert (service.rdma_devices, service.mounts, service.stop_grace_s) == (
        4,
        ("/a:/a",),
        30,
    )


def test_a_replica_knows_its_head(plan: Plan, engine: Any) -> None:
    plan(
        nodes=2,
        gpus=4,
        site=AT,
        aggregated={"tp": 1, "dp": 8, "dp_mode": "hybrid"},
        router={"kind": "plain"},
    )
    head, follower = engine.launched

    assert (head.index, head.count, follower.index) == (0, 2, 1)
    assert follower.head == "10.0.0.1"
    assert follower.address == "10.0.0.2"
    assert follower.head_ports == head.ports
    assert (head.dp_ranks, follower.dp_ranks) == ((0, 1, 2, 3), (4, 5, 6, 7))
    assert follower.pool.nodes_per_replica == 2


def test_a_rank_over_several_nodes_is_on_each_of_them(plan: Plan, engine: Any) -> None:
    plan(gpus=4, aggregated={"tp": 8, "dp": 2}, router=None)

    assert [worker.dp_ranks for worker in engine.launched] == [(0,), (0,), (1,), (1,)]
