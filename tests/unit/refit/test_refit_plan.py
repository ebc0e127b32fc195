"""Plans, bytes and bounds of the full-size models, against tables made elsewhere."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from pytest_pd.errors import SpecError
from pytest_pd.refit.bound import verdict
from pytest_pd.refit.cells import make_cells
from pytest_pd.refit.files import pick, read_refit, read_refit_cluster
from pytest_pd.refit.plan import (
    bound_order,
    claimed_order,
    make_plan,
    memory_refusal,
)
from pytest_pd.refit.tensors import grids, parameters, tensor_kinds
from pytest_pd.spec.refit import Layout, RefitScenario

KIMI = read_refit("kimi_k2")
RECORDED = json.loads(
    (Path(__file__).parent / "data" / "megatron_core_0_19_2_kimi_k2.json").read_text()
)

# Derived apart from this code, by sets of elements per rank; decimals as published.
# id: need, lack, lack on average (GB per GPU), sum TB, NIC in GB, bound, in, out, gpu,
# pull (ms).
H100 = {
    1: ("68.26", "68.26", "68.26", "2.18", "66.35", 1327, 1327, 663, 137, 1365),
    2: ("68.26", "68.26", "68.26", "2.18", "66.35", 1327, 1327, 663, 137, 1365),
    3: ("66.93", "66.93", "66.93", "2.14", "65.02", 1300, 1300, 650, 134, 1339),
    4: ("34.55", "34.55", "34.55", "2.21", "32.65", 653, 653, 653, 69, 691),
    5: ("35.22", "35.22", "35.22", "2.25", "33.31", 666, 666, 666, 70, 704),
    6: ("20.69", "18.51", "17.36", "2.22", "9.26", 185, 185, 185, 37, 370),
    7: ("19.36", "17.18", "16.65", "2.13", "17.18", 344, 344, 317, 34, 344),
}
NVL72 = {
    1: ("68.26", "68.26", "68.26", "2.18", "64.39", 1288, 1288, 429, 72, 1365),
    2: ("68.26", "68.26", "68.26", "2.18", "64.39", 1288, 1288, 429, 72, 1365),
    3: ("66.93", "66.93", "66.93", "2.14", "64.39", 1288, 1288, 429, 70, 1339),
    4: ("34.55", "34.55", "34.55", "2.21", "32.13", 643, 643, 500, 36, 691),
    5: ("35.22", "35.22", "35.22", "2.25", "32.13", 643, 643, 500, 37, 704),
    6: ("20.69", "18.51", "17.36", "2.22", "1.13", 23, 23, 23, 19, 317),
    7: ("19.36", "17.18", "16.65", "2.13", "1.13", 23, 23, 23, 18, 317),
}
NVL64 = {
    1: ("68.26", "68.26", "68.26", "2.18", "64.15", 1283, 1283, 642, 72, 1365),
    2: ("68.26", "68.26", "68.26", "2.18", "64.15", 1283, 1283, 642, 72, 1365),
    3: ("66.93", "66.93", "66.93", "2.14", "64.15", 1283, 1283, 642, 70, 1339),
    4: ("34.55", "34.55", "34.55", "2.21", "32.08", 642, 642, 642, 36, 691),
    5: ("35.22", "35.22", "35.22", "2.25", "32.08", 642, 642, 642, 37, 704),
    6: ("20.69", "18.51", "17.36", "2.22", "0.00", 19, 0, 0, 19, 19),
    7: ("19.36", "17.18", "16.65", "2.13", "0.00", 18, 0, 0, 18, 18),
}
# id: NIC in, NIC out, scale-up in (GB, fullest GPU), local TB, NIC TB, staging GB.
MEGATRON_ON_H100 = {
    1: ("68.26", "36.55", "0.00", "0.000", "2.184", "0.00"),
    2: ("68.26", "36.55", "0.00", "0.000", "2.184", "22.29"),
    3: ("66.93", "35.22", "0.00", "0.000", "2.142", "0.00"),
    4: ("34.55", "35.22", "0.00", "0.000", "2.211", "0.00"),
    5: ("35.22", "36.55", "0.00", "0.000", "2.254", "0.00"),
    6: ("18.51", "9.26", "18.51", "0.427", "1.185", "6.43"),
    7: ("17.18", "17.18", "17.18", "0.348", "1.650", "5.86"),
}


def plan(number, cluster="h100_ib", *, dtype="bf16", choice="megatron"):
    (scenario,) = pick(KIMI, [number])
    scenario = RefitScenario(**{**dict(scenario), "dtype": dtype})
    return make_plan(KIMI.model, scenario, read_refit_cluster(cluster), choice=choice)


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("kimi_k2", 1_026_408_232_448),
        ("llama_3_1_8b", 8_030_261_248),
        ("qwen3_30b_a3b", 30_532_122_624),
    ],
)
def test_parameters_are_those_of_the_published_model(name, total):
    kinds = tensor_kinds(read_refit(name).model)

    assert sum(parameters(kinds).values()) == total


def test_kimi_parameters_by_group():
    groups = parameters(tensor_kinds(KIMI.model))

    assert groups["routed_experts"] == 1_014_686_023_680
    assert groups["router"] == 165_173_760
    assert groups["norms"] == 1_006_592
    assert groups["attn_q_b"] == 1_151_336_448


@pytest.mark.parametrize("number", range(1, 8))
@pytest.mark.parametrize(
    ("cluster", "table"),
    [("h100_ib", H100), ("gb200_nvl72", NVL72), ("gb200_nvl72_64", NVL64)],
)
def test_bytes_and_bounds_equal_the_table(cluster, table, number):
    b = plan(number, cluster).bound

    assert (
        f"{b.need_gb:.2f}",
        f"{b.missing_gb:.2f}",
        f"{b.missing_mean_gb:.2f}",
        f"{b.total_gb / 1e3:.2f}",
        f"{b.domain_in_gb:.2f}",
        *(round(s * 1e3) for s in (b.bound_s, b.in_s, b.out_s, b.gpu_s, b.pull_s)),
    ) == table[number]


@pytest.mark.parametrize("number", range(1, 8))
def test_traffic_of_megatrons_choice_equals_the_table(number):
    made = plan(number)
    gb = 2e-9
    nic, nvlink = made.traffic.crossing(8) * gb, made.traffic.inside(8) * gb

    assert (
        f"{nic.sum(axis=0).max():.2f}",
        f"{nic.sum(axis=1).max():.2f}",
        f"{nvlink.sum(axis=0).max():.2f}",
        f"{made.traffic.local * gb / 1e3:.3f}",
        f"{nic.sum() / 1e3:.3f}",
        f"{made.traffic.staged.max() * gb:.2f}",
    ) == MEGATRON_ON_H100[number]


def digest(matrix):
    return hashlib.sha256(matrix.astype("<i8").tobytes()).hexdigest()


@pytest.mark.parametrize("number", range(1, 8))
def test_the_plan_is_megatron_cores_schedule(number):
    recorded = RECORDED["schedules"][number - 1]
    traffic = plan(number).traffic

    assert recorded["name"] == f"kimi_k2/{number}"
    assert traffic.elements.sum(axis=0).tolist() == recorded["received_elements"]
    assert traffic.elements.sum(axis=1).tolist() == recorded["sent_elements"]
    assert traffic.local == recorded["local_elements"]
    assert int(traffic.messages.sum()) == recorded["messages"]
    assert digest(traffic.elements) == recorded["elements_sha256"]
    assert digest(traffic.messages) == recorded["messages_sha256"]


def test_the_recorded_schedule_says_where_it_is_from():
    assert RECORDED["provenance"]["source"] == "megatron_core-0.19.2"
    assert len(RECORDED["provenance"]["planner_sha256"]) == 64


@pytest.mark.parametrize("number", range(1, 8))
def test_every_claim_is_impossible_on_h100(number):
    assert plan(number).verdict == "impossible"
    assert plan(number, dtype="fp8").verdict == "impossible"


def test_some_claims_can_hold_in_one_nvlink_domain():
    verdicts = [plan(n, "gb200_nvl72").verdict for n in range(1, 8)]

    assert verdicts == ["impossible"] * 5 + ["partly", "possible"]


def test_four_bit_weights_reach_one_claim():
    assert plan(5, dtype="nvfp4").verdict == "partly"
    assert round(plan(5, dtype="nvfp4").bound.bound_s * 1e3) == 187


@pytest.mark.parametrize(
    ("bound_ms", "word"),
    [
        (19, "possible"),
        (20, "possible"),
        (21, "partly"),
        (40, "partly"),
        (41, "impossible"),
    ],
)
def test_verdict_compares_both_ends_of_the_claim(bound_ms, word):
    assert verdict((20, 40), bound_ms / 1e3) == word


def test_order_by_bound_is_not_the_order_of_the_claims():
    plans = [plan(number) for number in range(1, 8)]

    assert bound_order(plans) == "6 < 7 < 4 < 5 < 3 < 1 = 2"
    assert claimed_order(plans) == "6 < 7 < 1 < 2 < 3 < 4 < 5"


def test_staging_is_what_makes_scenario_2_too_big():
    assert memory_refusal(plan(1)) == ""
    assert "68.3 GB of target + 22.3 GB of staging = 90.5 GB > 80 GB" in memory_refusal(
        plan(2)
    )
    assert memory_refusal(plan(2, "gb200_nvl72")) == ""


def test_collocated_memory_counts_both_models():
    memory = plan(6).memory

    assert memory.peak_gb > memory.source_gb + memory.target_gb


def test_experts_per_group():
    assert [plan(n).experts_per_group for n in (1, 3, 6)] == [
        (48, 96),
        (96, 192),
        (48, 24),
    ]


@pytest.mark.parametrize("choice", ["megatron", "nearest"])
@pytest.mark.parametrize("number", range(1, 8))
def test_every_rank_gets_exactly_what_it_needs(number, choice):
    made = plan(number, choice=choice)
    need = made.cells.needed.T.astype(np.int64) @ made.cells.elements

    assert made.traffic.elements.sum(axis=0).tolist() == need.tolist()


@pytest.mark.parametrize("number", range(1, 8))
def test_nearest_never_sends_more_than_megatron(number):
    near, far = plan(number, choice="nearest"), plan(number)

    assert near.traffic.crossing(8).sum() <= far.traffic.crossing(8).sum()
    assert near.traffic.local >= far.traffic.local


def test_nearest_spreads_what_megatron_takes_from_one_rank():
    # With TP 1 all holders form one data-parallel group and Megatron asks its first.
    small = KIMI.twins["tiny"]
    scenario = pick(KIMI, [1])[0].scaled(tp_by=8, ep_by=2)
    cluster = read_refit_cluster("h100_ib")

    sent = {
        choice: make_plan(
            small.model, scenario, cluster, choice=choice
        ).traffic.elements.sum(axis=1)[:4]
        for choice in ("megatron", "nearest")
    }

    assert sent["megatron"][0] == sent["megatron"].max()
    assert sent["nearest"].max() < sent["megatron"].max()


def test_an_unknown_choice_is_refused():
    with pytest.raises(SpecError, match="'best'"):
        plan(1, choice="best")


def test_a_refit_to_the_same_layout_on_the_same_ranks_moves_nothing():
    layout = Layout(tp=8, ep=4)
    same = RefitScenario(id=1, mode="collocated", source=layout, target=layout)

    made = make_plan(KIMI.model, same, read_refit_cluster("h100_ib"), choice="nearest")

    assert made.traffic.remote_elements().sum() == 0
    assert made.bound.bound_s == 0


def test_the_way_back_has_the_same_total_where_nothing_is_replicated():
    (there,) = pick(KIMI, [6])
    experts = [k for k in tensor_kinds(KIMI.model) if k.sharding == "etp"]

    totals = []
    for scenario in (there, there.reversed()):
        cells = make_cells(experts, *grids(scenario, KIMI.model))
        totals.append(int(cells.elements.sum()))

    assert totals[0] == totals[1] == 1_014_686_023_680
