"""What refit files may say, and the arithmetic with which they are refused."""

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.refit.files import parse_ids, pick, read_refit, read_refit_cluster, twin
from pytest_pd.spec.file import build, parse_document
from pytest_pd.spec.refit import Layout, RefitScenario, RefitSpec

SMALL = """\
name: small
model:
  name: Small
  hidden: 64
  layers: 2
  experts: 12
  moe_inter: 32
  heads: 8
  attention: {kind: gqa, kv_heads: 4, head_dim: 8}
  vocab: 512
scenarios:
  - {id: 1, mode: non-collocated, source: {tp: 2, ep: 4}, target: {tp: 4, ep: 2}}
"""


def read(text, tmp_path):
    return build(parse_document(text, tmp_path / "small.yaml"), RefitSpec)


def scenario(**changes):
    values = {
        "id": 1,
        "mode": "non-collocated",
        "source": {"tp": 8, "ep": 8},
        "target": {"tp": 8, "ep": 4},
    }
    return RefitScenario(**{**values, **changes})


@pytest.mark.parametrize("name", ["kimi_k2", "llama_3_1_8b", "qwen3_30b_a3b"])
def test_shipped_files_are_read_by_name(name):
    assert read_refit(name).name == name


@pytest.mark.parametrize("name", ["h100_ib", "gb200_nvl72", "gb200_nvl72_64"])
def test_shipped_clusters_are_read_by_name(name):
    assert read_refit_cluster(name).name == name


def test_an_unknown_file_names_the_nearest():
    with pytest.raises(SpecError, match="kimi_k3") as caught:
        read_refit("kimi_k3")

    assert "kimi_k2" in caught.value.hint


def test_an_unknown_key_is_refused_with_line_and_neighbour(tmp_path):
    text = SMALL.replace("  hidden: 64", "  hiden: 64\n  hidden: 64")

    with pytest.raises(SpecError, match=r"small\.yaml:4") as caught:
        read(text, tmp_path)

    assert "hidden" in caught.value.hint


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "experts: 12",
            "experts: 10",
            "experts 10 is not a multiple of ep 4: 10 % 4",
        ),
        ("heads: 8", "heads: 6", "heads 6 is not a multiple of tp 4"),
        ("kv_heads: 4", "kv_heads: 2", "kv_heads 2 is not a multiple of tp 4"),
        ("moe_inter: 32", "moe_inter: 34", "moe_inter 34 is not a multiple of etp 4"),
        ("vocab: 512", "vocab: 514", "vocab 514 is not a multiple of tp 4"),
    ],
)
def test_a_shape_that_does_not_divide_is_refused_with_the_sum(old, new, told, tmp_path):
    with pytest.raises(SpecError) as caught:
        read(SMALL.replace(old, new), tmp_path)

    assert told in str(caught.value)


def test_expert_parallelism_without_experts_is_refused(tmp_path):
    text = SMALL.replace(
        "  experts: 12\n  moe_inter: 32\n", "  dense_layers: 2\n  dense_inter: 64\n"
    )

    with pytest.raises(SpecError, match="needs experts"):
        read(text, tmp_path)


def test_expert_tensor_parallelism_defaults_to_tensor_parallelism():
    assert Layout(tp=8, ep=4).expert_tp == 8
    assert Layout(tp=8, ep=4, etp=1).expert_tp == 1


@pytest.mark.parametrize(
    ("layout", "ranks"),
    [
        (Layout(tp=8, ep=8), 64),
        (Layout(tp=16, ep=4), 64),
        (Layout(tp=4, ep=8, etp=1), 8),
        (Layout(tp=2, pp=3), 6),
        (Layout(tp=2, dp=5), 10),
    ],
)
def test_ranks_are_the_fewest_that_both_splits_fill(layout, ranks):
    assert layout.ranks == ranks


def test_replicas_that_do_not_hold_all_experts_are_refused():
    with pytest.raises(ValueError, match=r"tp 8 x dp 2 x pp 1 = 16 .* etp 8 x ep 4"):
        Layout(tp=8, ep=4, dp=2)


def test_a_launch_is_rounded_up_to_what_megatron_accepts():
    made = scenario()

    assert (made.used_ranks, made.world_ranks) == (96, 128)
    assert made.idle_ranks == range(96, 128)


def test_a_launch_that_megatron_refuses_is_refused_here():
    with pytest.raises(ValueError, match=r"launch_ranks 96 .* etp x ep x pp = 64"):
        scenario(launch_ranks=96)


def test_a_launch_smaller_than_the_refit_is_refused():
    with pytest.raises(ValueError, match="launch_ranks 64 < 96"):
        scenario(launch_ranks=64)


def test_collocated_sides_must_have_equal_ranks():
    with pytest.raises(ValueError, match=r"64 ranks, target TP8EP4 32"):
        scenario(mode="collocated")


def test_collocated_target_starts_at_rank_zero_and_others_after_the_source():
    assert scenario().target_offset == 64
    assert scenario(mode="collocated", target={"tp": 16, "ep": 4}).target_offset == 0


def test_the_way_back_swaps_the_sides_and_makes_no_claim():
    there = scenario(claimed_ms=(30, 60))

    back = there.reversed()

    assert (back.source, back.target) == (there.target, there.source)
    assert back.claimed_ms is None
    assert (there.label, back.label) == ("1", "1-back")


def test_a_scaled_scenario_divides_degrees_and_runs_on_gloo():
    small = scenario(method="nvshmem").scaled(tp_by=8, ep_by=2)

    assert (str(small.source), str(small.target)) == ("TP1EP4", "TP1EP2")
    assert small.method == "gloo"


def test_a_scaled_collocated_scenario_keeps_equal_ranks():
    there = scenario(mode="collocated", target={"tp": 2, "ep": 4, "etp": 1, "dp": 32})

    small = there.scaled(tp_by=4, ep_by=2)

    assert small.source.ranks == small.target.ranks == 8


def test_two_scenarios_with_one_id_are_refused(tmp_path):
    line = SMALL.splitlines()[-1]

    with pytest.raises(SpecError, match="same id"):
        read(SMALL + line + "\n", tmp_path)


def test_a_twin_that_does_not_divide_is_refused(tmp_path):
    model = "\n".join("    " + line for line in SMALL.splitlines()[1:10])
    text = SMALL + "twins:\n  tiny:\n" + model.replace("experts: 12", "experts: 6")

    with pytest.raises(SpecError, match="twin tiny, scenario 1"):
        read(text, tmp_path)


def test_scenarios_are_picked_in_the_order_asked_for():
    spec = read_refit("kimi_k2")

    assert [s.id for s in pick(spec, parse_ids(["6,1", "1"]))] == [6, 1]
    assert len(pick(spec, parse_ids([]))) == 7


def test_an_unknown_scenario_names_the_known_ones():
    with pytest.raises(SpecError, match="no scenario 9") as caught:
        pick(read_refit("kimi_k2"), [9])

    assert "1, 2, 3, 4, 5, 6, 7" in caught.value.hint


def test_words_are_no_scenario_numbers():
    with pytest.raises(SpecError, match="'six' is no list"):
        parse_ids(["six"])


def test_an_unknown_twin_names_the_known_ones():
    with pytest.raises(SpecError, match="tinny") as caught:
        twin(read_refit("kimi_k2"), "tinny")

    assert "tiny" in caught.value.hint


def test_more_ranks_than_are_planned_are_refused():
    with pytest.raises(ValueError, match=r"has 1000000 ranks; 4096 is the most"):
        scenario(launch_ranks=1_000_000)
