"""Transfers replayed on small arrays, against a split made by slicing alone."""

from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest

from pytest_pd.refit.cells import make_cells
from pytest_pd.refit.choice import megatron, nearest
from pytest_pd.refit.files import pick, read_refit
from pytest_pd.refit.shape import Grid, TensorKind
from pytest_pd.refit.tensors import grids, tensor_kinds
from pytest_pd.refit.traffic import make_traffic
from pytest_pd.refit.transfer import (
    Planner,
    Shard,
    elements_of,
    gaps,
    pieces,
    shards,
)

GATED = TensorKind("fc1", "mlp", 24, 2, "tp", 0, 2, 0, 1, 0)
ROWS = TensorKind("proj", "attn", 24, 2, "tp", 0, 1, 0, 1, 0)
COLUMNS = TensorKind("fc2", "mlp", 2, 24, "tp", 1, 1, 0, 1, 0)
POLICIES = {"megatron": megatron, "nearest": nearest(4)}


def twins():
    for name, size in (
        ("kimi_k2", "tiny"),
        ("kimi_k2", "tiny16"),
        ("llama_3_1_8b", "tiny"),
        ("qwen3_30b_a3b", "tiny"),
    ):
        spec = read_refit(name)
        twin = spec.twins[size]
        for scenario in pick(spec, []):
            small = scenario.scaled(tp_by=twin.tp_by, ep_by=twin.ep_by)
            for way in (small, small.reversed()):
                yield pytest.param(
                    tensor_kinds(twin.model),
                    *grids(way, twin.model),
                    id=f"{name}-{size}-{way.label}",
                )


TWINS = list(twins())


def cut(whole, kind, part, parts):
    """Return a rank's shard as Megatron cuts it: each block on its own."""
    blocks = np.split(whole, kind.blocks, axis=kind.dim)
    return np.concatenate(
        [np.split(block, parts, axis=kind.dim)[part] for block in blocks], axis=kind.dim
    )


def run(array, dim, start, length):
    return array[(slice(None),) * dim + (slice(start, start + length),)]


@pytest.mark.parametrize("kind", [GATED, ROWS, COLUMNS], ids=lambda k: k.name)
@pytest.mark.parametrize("before", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("after", [1, 2, 3, 4, 6])
def test_pieces_turn_one_split_into_another(kind, before, after):
    whole = np.arange(kind.elements).reshape(kind.rows, kind.cols)
    old = [cut(whole, kind, part, before) for part in range(before)]
    new = [np.full_like(cut(whole, kind, p, after), -1) for p in range(after)]

    for piece in pieces(kind, before, after):
        giver, taker = piece.parts
        run(new[taker], kind.dim, piece.write_start, piece.length)[...] = run(
            old[giver], kind.dim, piece.read_start, piece.length
        )

    for part in range(after):
        assert (new[part] == cut(whole, kind, part, after)).all()


def test_taking_a_gated_tensor_for_one_block_is_wrong():
    # This is what partition_stride 1 on a SwiGLU fc1 does.
    wrong = replace(GATED, blocks=1)

    assert pieces(wrong, 2, 4) != pieces(GATED, 2, 4)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("kinds", "source", "target"), TWINS)
def test_transfers_add_up_to_the_traffic_of_the_cells(kinds, source, target, policy):
    choose = POLICIES[policy]
    traffic = make_traffic(make_cells(kinds, source, target), source, choose)
    world = len(traffic.elements)
    held = {
        (rank, shard.index): shard
        for rank in range(world)
        for shard in shards(kinds, target, rank)
    }
    elements, messages = np.zeros((world, world), int), np.zeros((world, world), int)
    tasks = Counter()

    for each in Planner(kinds, source, target, choose).transfers():
        shard = held[each.target, each.write]
        elements[each.source, each.target] += elements_of(each, shard)
        messages[each.source, each.target] += 1
        tasks[each.task] += 1

    assert (elements == traffic.elements).all()
    assert (messages == traffic.messages).all()
    assert max(tasks.values()) == 1


@pytest.mark.parametrize(("kinds", "source", "target"), TWINS)
def test_every_element_is_written_once_from_a_rank_that_has_it(kinds, source, target):
    writes = defaultdict(list)
    world = max(side.offset + side.ranks for side in (source, target))
    have = {r: {s.index for s in shards(kinds, source, r)} for r in range(world)}

    for each in Planner(kinds, source, target, nearest(4)).transfers():
        writes[each.target, each.write].append(each)
        assert each.read in have[each.source]

    for rank in range(world):
        for shard in shards(kinds, target, rank):
            assert gaps(writes[rank, shard.index], shard) == ""


@pytest.mark.parametrize(("kinds", "source", "target"), TWINS)
def test_a_rank_lists_its_own_part_of_the_whole_list(kinds, source, target):
    planner = Planner(kinds, source, target, megatron)
    everything = list(planner.transfers())

    for rank in (0, target.offset):
        mine = [t for t in everything if rank in (t.source, t.target)]
        assert list(planner.transfers(rank)) == mine


def test_tasks_ascend_in_the_order_of_the_list():
    spec = read_refit("kimi_k2")
    twin = spec.twins["tiny"]
    small = pick(spec, [7])[0].scaled(tp_by=8, ep_by=2)

    planner = Planner(tensor_kinds(twin.model), *grids(small, twin.model), megatron)
    tasks = [t.task for t in planner.transfers()]

    assert tasks == sorted(tasks)


@pytest.fixture
def writes():
    """A shard and the three transfers that fill it."""
    shard = Shard(0, "fc1", ROWS, 0, 1)
    grid = Grid(tp=1, ep=1, etp=1, pp=1, ranks=1, offset=0, layers=1)
    source = replace(grid, tp=3, ranks=3, offset=1)
    return shard, list(Planner([ROWS], source, grid, megatron).transfers())


def test_a_full_shard_has_no_gaps(writes):
    shard, transfers = writes

    assert len(transfers) == 3
    assert gaps(transfers, shard) == ""


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_lost_transfer_leaves_a_gap(writes, lost):
    shard, transfers = writes

    told = gaps([t for i, t in enumerate(transfers) if i != lost], shard)

    assert told == f"fc1: {lost * 8}..{lost * 8 + 8} along dim 0 is written never"


def test_a_transfer_twice_is_told(writes):
    shard, transfers = writes

    assert "is written twice" in gaps([*transfers, transfers[1]], shard)


def test_a_transfer_that_is_too_long_is_told(writes):
    shard, transfers = writes
    transfers[0] = replace(transfers[0], length=9)

    assert "written twice" in gaps(transfers, shard)


def test_experts_are_dealt_in_runs():
    grid = Grid(tp=2, ep=4, etp=2, pp=1, ranks=8, offset=8, layers=1)

    assert [list(grid.experts_of(r, 8)) for r in (8, 9, 10, 15)] == [
        [0, 1],
        [0, 1],
        [2, 3],
        [6, 7],
    ]


def test_layers_are_dealt_to_stages_in_runs():
    grid = Grid(tp=1, ep=1, etp=1, pp=3, ranks=3, offset=0, layers=61)

    stages = [grid.stage_of_layer(layer) for layer in range(61)]

    assert stages == sorted(stages)
    assert sorted(Counter(stages).values()) == [20, 20, 21]
