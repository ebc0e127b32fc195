"""What a plan will cost, and what it expects to see."""

from collections.abc import Callable

import pytest

from pytest_pd.plan.build import KV_TOKENS, LOG_BYTES, make_plan
from pytest_pd.plan.model import DeploymentPlan, KvShape
from pytest_pd.spec.cluster import ClusterSpec

Plan = Callable[..., DeploymentPlan]


def test_gpu_hours_count_every_gpu_that_is_held(plan: Plan) -> None:
    deployment = plan(
        aggregated={"tp": 2},
        router=None,
        budgets={"queue_s": 9999, "ready_s": 600, "tests_s": 1140, "teardown_s": 60},
    )

    assert deployment.gpus == 2
    assert deployment.gpus_held == 8
    assert deployment.gpu_hours == pytest.approx(8 * 0.5)


@pytest.mark.parametrize(
    ("level", "tests_s"), [("quick", 300), ("standard", 1800), ("full", 14400)]
)
def test_the_level_is_the_budget_of_the_tests(
    plan: Plan, level: str, tests_s: float
) -> None:
    assert plan(level=level).budgets_s == {
        "ready": 100.0,
        "tests": tests_s,
        "teardown": 60.0,
    }


def test_logs_are_counted_and_files_of_kv_only_where_there_are_any(plan: Plan) -> None:
    assert plan().disk_bytes == 3 * LOG_BYTES


def test_kv_bytes_follow_the_shape() -> None:
    assert KvShape(5, 2, 64, 4).bytes_per_token == 5 * 2 * 2 * 64 * 4


def test_expected_evidence_is_the_engines_promise(plan: Plan) -> None:
    pd, alone = plan(hardware="cpu"), plan(aggregated={}, router=None)

    assert (pd.expected.transfer, pd.expected.block_tokens) == ("pull", 16)
    assert pd.expected.deterministic == "exact"
    assert alone.expected.transfer == "none"
    assert alone.expected.deterministic == "floor"


def test_forced_acceptance_takes_the_truth_out_of_the_tokens(plan: Plan) -> None:
    bent = {"speculative": {"method": "mtp", "forced_acceptance": 2.5}}
    made = plan(prefill={}, decode=bent)

    assert made.performance_only
    assert not made.expected.true_tokens
    assert plan().expected.true_tokens


def test_a_service_that_is_not_there_is_a_key_error(plan: Plan) -> None:
    with pytest.raises(KeyError):
        plan().service("ghost")


def test_shared_storage_is_counted_with_kv_files() -> None:
    from pytest_pd.engines.reference import Reference
    from pytest_pd.routers.proxy import Proxy
    from pytest_pd.spec.topology import TopologySpec

    topology = TopologySpec.model_validate(
        {
            "name": "t",
            "hardware": "cpu",
            "model": {"path": "m", "served_name": "m"},
            "engine": {"kind": "reference"},
            "kv_transfer": {"connector": "shared_storage", "path": "{run_dir}/kv"},
            "prefill": {},
            "decode": {},
            "router": {"kind": "proxy"},
        }
    )
    kv = KvShape(5, 2, 64, 2)
    made = make_plan(topology, ClusterSpec(name="c"), Reference(), Proxy(), kv=kv)

    assert made.disk_bytes == 3 * LOG_BYTES + KV_TOKENS * 2560
