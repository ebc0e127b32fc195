"""What a worker does to tensors, in one process; needs torch in this interpreter."""

from __future__ import annotations

import os

import pytest

from pytest_pd.refit.job import Job
from pytest_pd.refit.shape import Grid, TensorKind
from pytest_pd.refit.transfer import Shard, Transfer, tensors

try:
    import torch
except ImportError:
    if "torch" in os.environ.get("PD_REQUIRE", "").split(","):
        raise
    pytest.skip("torch: pip install 'pytest-pd[refit]'", allow_module_level=True)

from pytest_pd.refit.worker import probe
from pytest_pd.refit.worker.engine import Meter
from pytest_pd.refit.worker.message import (
    MESSAGE_BYTES,
    Ring,
    Staged,
    in_turn,
    messages,
)
from pytest_pd.refit.worker.mutant import MUTANTS
from pytest_pd.refit.worker.nursery import ranks_here
from pytest_pd.refit.worker.variants import Parts, own_transfers
from pytest_pd.refit.worker.weights import POISON, Weights

FC1 = TensorKind("fc1.weight{expert}", "x", 16, 6, "etp", 0, 2, 0, 1, 4)
FC2 = TensorKind("fc2", "x", 6, 8, "tp", 1, 1, 0, 1, 0)
CPU = torch.device("cpu")


def grid(**changes):
    values = {"tp": 1, "ep": 1, "etp": 1, "pp": 1, "ranks": 1, "offset": 0, "layers": 1}
    return Grid(**{**values, **changes})


def job(**changes):
    source = grid(tp=2, etp=2, ranks=2)
    values = {"name": "j", "kinds": (FC1, FC2), "source": source}
    values |= {"target": grid(offset=2), "rendezvous": "", "out_dir": ""}
    return Job(**{**values, **changes})


def weights(element_bytes=2):
    shards = [Shard(0, "a", FC2, 1, 2), Shard(1, "b", FC1, 0, 2)]
    return Weights(shards, element_bytes, CPU)


@pytest.mark.parametrize("element_bytes", [1, 2, 4])
def test_filled_weights_are_right_and_any_flipped_bit_is_found(element_bytes):
    made = weights(element_bytes)
    made.fill(3)
    assert list(made.wrong(3)) == []

    made.bits(1)[2, 5] ^= 1

    (told,) = made.wrong(3)
    assert told == ("b shard 0 of 2: 1 of 48 elements wrong, first at row 2, column 5")


def test_poison_is_wrong_everywhere_and_said_to_be_unwritten():
    made = weights()
    made.poison()

    told = list(made.wrong(0))

    assert len(told) == 2
    assert "24 of 24 elements wrong, 24 of them never written" in told[0]
    assert torch.isnan(made.tensors[0]).all()


def test_advancing_equals_filling_anew():
    made = weights()
    made.fill(0)
    made.advance(0, 7)

    assert list(made.wrong(7)) == []
    assert len(list(made.wrong(6))) == 2


def test_weights_beyond_the_cache_are_checked_as_well(monkeypatch):
    monkeypatch.setattr("pytest_pd.refit.worker.weights.CACHE_BYTES", 0)
    made = weights()
    made.fill(0)

    assert list(made.wrong(0)) == []
    made.bits(0)[0, 0] = POISON
    assert "first at row 0, column 0" in next(made.wrong(0))


def test_a_round_trip_through_another_dtype_is_found():
    made = weights()
    made.fill(0)

    made.tensors[0].copy_(made.tensors[0].to(torch.float16))

    assert len(list(made.wrong(0))) == 1


def test_neighbours_in_memory_travel_as_one_message_without_packing():
    arena = torch.arange(100.0)

    (message,) = messages(1, [arena[:40].view(4, 10), arena[40:100].view(6, 10)])

    assert message.whole is not None
    assert message.whole.data_ptr() == arena.data_ptr()
    assert message.elements == 100


def test_strided_runs_are_packed_and_unpacked():
    source = torch.arange(48.0).view(6, 8)
    target = torch.zeros(6, 8)
    (leaving,) = messages(1, [source[:, 2:5], source[:, 5:7]])
    (coming,) = messages(0, [target[:, 2:5], target[:, 5:7]])
    buffer = torch.empty(leaving.elements)

    Staged.of(leaving, buffer).pack()
    Staged.of(coming, buffer).unpack()

    assert leaving.whole is None
    assert (target[:, 2:7] == source[:, 2:7]).all()
    assert not target[:, :2].any()
    assert not target[:, 7:].any()


def test_both_ranks_cut_messages_alike_whatever_their_memory_looks_like():
    rows = MESSAGE_BYTES // 4 // 8
    counts = (rows // 2, rows // 3, rows, rows // 4)
    flat = [torch.empty(count, 8) for count in counts]
    wide = [torch.empty(len(part), 16)[:, :8] for part in flat]

    sizes = [[m.elements for m in messages(0, runs)] for runs in (flat, wide)]

    assert sizes[0] == sizes[1]
    assert len(sizes[0]) == 3


def test_a_run_above_the_limit_is_a_message_of_its_own():
    big = torch.empty(MESSAGE_BYTES // 4 + 1)

    assert [len(m.runs) for m in messages(0, [big[:8], big, big[:8]])] == [1, 1, 1]


def test_peers_take_turns():
    runs = [torch.empty(MESSAGE_BYTES // 4)] * 2

    order = [(m.peer, m.tag) for m in in_turn({3: runs, 5: runs[:1], 7: runs})]

    assert order == [(3, 0), (5, 0), (7, 0), (3, 1), (7, 1)]


class Work:
    """A send that counts how often it was waited for."""

    waits = 0

    def wait(self):
        self.waits += 1


def test_a_slot_waits_once_for_its_last_send():
    source = torch.arange(64.0).view(8, 8)
    some = [m for _ in range(5) for m in messages(1, [source[:, :4]])]
    ring = Ring(some, slots=2)
    works, sent = [], []

    def post(buffer):
        sent.append(buffer.clone())
        works.append(Work())
        return works[-1]

    for _ in some:
        ring.send(post)
    ring.drain()
    ring.drain()

    assert [work.waits for work in works] == [1] * 5
    assert all((one.view(8, 4) == source[:, :4]).all() for one in sent)
    assert ring.nbytes == 2 * 32 * 4


def test_without_packing_there_is_no_ring():
    assert Ring(messages(1, [torch.empty(8)])).nbytes == 0


def test_the_rate_of_copying_is_the_best_try():
    ticks = iter(range(0, 10**9, 1000))

    assert probe.memcpy_byte_s(lambda: next(ticks)) == probe.COPY_BYTES / 1000 * 1e9


def test_memory_of_this_process_is_read():
    now = probe.reset_peak(CPU)

    assert 1 << 20 < now <= probe.peak_bytes(CPU)


def parts():
    class Engine:
        meter = Meter()

    return Parts(lambda rank: own_transfers(job(), rank), Engine(), lambda: 0)


def listed(name, rank=2):
    made = parts()
    MUTANTS[name](job(), rank, made)
    return list(made.transfers(rank))


HONEST = list(own_transfers(job(), 2))


def test_the_stride_mutant_reads_other_places():
    assert listed("stride_one") != HONEST
    lengths = [sum(t.length for t in some) for some in (listed("stride_one"), HONEST)]
    assert lengths[0] == lengths[1]


def test_the_expert_mutant_reads_every_expert_from_its_neighbour():
    experts = {number for number, kind, _, _ in tensors(job().kinds) if kind.experts}

    for wrong, right in zip(listed("expert_shift"), HONEST, strict=True):
        shift = (right.read + 1) % 4 if right.read in experts else right.read
        assert wrong.read == shift


def test_the_drop_mutant_leaves_the_same_transfer_out_everywhere():
    lost = set(HONEST) - set(listed("drop_message"))

    assert len(lost) == 1
    (one,) = lost
    assert isinstance(one, Transfer)
    assert one not in listed("drop_message", one.source)


def test_the_skewed_clock_runs_at_half_speed():
    made = parts()
    now = [0]
    made.clock = lambda: now[0]
    MUTANTS["clock_skew"](job(), job().world - 1, made)

    now[0] = 1000

    assert made.clock() == 500


@pytest.mark.parametrize(
    ("node", "ranks"), [(0, range(2)), (1, range(2, 3)), (2, range(4, 3))]
)
def test_a_node_forks_its_own_ranks(monkeypatch, node, ranks):
    monkeypatch.setenv("SLURM_NODEID", str(node))

    assert list(ranks_here(job(), 2)) == list(ranks)
    assert ranks_here(job(), None) == range(3)
