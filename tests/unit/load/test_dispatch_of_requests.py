"""Which request starts when, without any network."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_pd.errors import SpecError
from pytest_pd.load.arrivals import arrival_offsets_ns
from pytest_pd.load.dispatch import ClosedLoop, OpenLoop
from pytest_pd.load.point import Arrivals, LoadPoint
from pytest_pd.load.prompts import Prompt
from pytest_pd.load.shard import deal

NS = 1_000_000_000


def open_point(kind, rate=10.0, **fields):
    return LoadPoint(concurrency=None, arrivals=kind, rate_per_s=rate, **fields)


def offsets(point, count=1000):
    return arrival_offsets_ns(point, [Prompt()] * count) / NS


def test_closed_loop_holds_its_concurrency():
    loop = ClosedLoop([Prompt()] * 5, range(5), start_ns=0, concurrency=2)

    assert loop.take(0, 0) == (0, 0)
    assert loop.take(0, 1) == (0, 1)
    assert loop.take(0, 2) is None
    loop.finished(1, 700, is_ok=True)
    assert loop.take(900, 1) == (700, 2), "due when the stream became free"


def test_closed_loop_ramps_one_stream_after_the_other():
    loop = ClosedLoop([Prompt()] * 4, range(4), start_ns=0, concurrency=4, ramp_s=4.0)

    assert loop.take(0, 0) == (0, 0)
    assert loop.take(0, 1) is None
    assert loop.due_ns(1) == NS
    assert loop.take(2 * NS, 1) == (NS, 1)
    assert loop.take(2 * NS, 2) == (2 * NS, 2)


def test_nothing_starts_after_the_time_is_up():
    loop = ClosedLoop([Prompt()] * 4, range(4), start_ns=0, concurrency=2, stop_ns=100)

    assert loop.take(99, 0) is not None
    assert loop.take(100, 1) is None
    assert loop.is_over


def test_a_turn_waits_for_the_one_before_and_for_thought():
    prompts = [Prompt(), Prompt(follows=0, think_s=1.0), Prompt()]
    loop = ClosedLoop(prompts, range(3), start_ns=0, concurrency=1)

    assert loop.take(0, 0) == (0, 0)
    loop.finished(0, 500, is_ok=True)
    assert loop.take(600, 0) == (500, 2), "another conversation goes first"
    loop.finished(2, 800, is_ok=True)
    assert loop.take(900, 0) is None
    assert loop.due_ns(0) == NS + 500
    assert loop.take(2 * NS, 0) == (NS + 500, 1)


def test_a_conversation_ends_with_its_first_failure():
    prompts = [Prompt(), Prompt(follows=0)]
    loop = ClosedLoop(prompts, range(2), start_ns=0, concurrency=1)

    loop.take(0, 0)
    loop.finished(0, 500, is_ok=False)

    assert loop.is_over


def test_open_loop_starts_on_time_whatever_is_in_flight():
    loop = OpenLoop([Prompt()] * 3, range(3), start_ns=100, offsets_ns=[0, 50, 60])

    assert loop.take(99, 0) is None
    assert loop.take(160, 0) == (100, 0)
    assert loop.take(160, 99) == (150, 1)
    assert loop.take(160, 99) == (160, 2)
    assert loop.is_over


def test_open_loop_with_a_cap_is_late_instead_of_over_it():
    loop = OpenLoop([Prompt()] * 2, range(2), start_ns=0, offsets_ns=[0, 1], cap=1)

    assert loop.take(5, 0) == (0, 0)
    assert loop.take(5, 1) is None
    assert loop.due_ns(1) is None
    assert loop.take(9, 0) == (1, 1)


def test_constant_arrivals_are_even():
    assert np.allclose(np.diff(offsets(open_point(Arrivals.CONSTANT))), 0.1)


@pytest.mark.parametrize(("shape", "spread"), [(1.0, 1.0), (4.0, 0.5), (0.25, 2.0)])
def test_burstiness_is_the_shape_of_gamma_gaps(shape, spread):
    """The coefficient of variation of gamma gaps is 1 / sqrt(shape)."""
    point = open_point(Arrivals.GAMMA, burstiness=shape, seed=3)

    gaps = np.diff(offsets(point, 20_000))

    assert gaps.mean() == pytest.approx(0.1, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(spread, rel=0.1)


def test_the_same_seed_gives_the_same_arrivals():
    one, other = (open_point(Arrivals.POISSON, seed=s) for s in (1, 2))

    assert np.array_equal(offsets(one), offsets(one))
    assert not np.array_equal(offsets(one), offsets(other))


def test_burst_starts_all_at_once():
    assert not offsets(LoadPoint(concurrency=None, arrivals=Arrivals.BURST)).any()


def test_a_ramp_reaches_the_rate_and_keeps_it():
    """Over R seconds to rate r come r R / 2 requests; then one each 1 / r."""
    times = offsets(open_point(Arrivals.CONSTANT, ramp_s=10.0), 200)

    assert np.searchsorted(times, 10.0) == pytest.approx(50, abs=1)
    assert np.allclose(np.diff(times[60:]), 0.1)
    assert (np.diff(np.diff(times[1:45])) < 0).all(), "gaps shrink during the ramp"


def test_trace_keeps_its_own_times():
    point = LoadPoint(concurrency=None, arrivals=Arrivals.TRACE)
    prompts = [Prompt(at_s=t) for t in (5.0, 5.5, 7.0)]

    assert (arrival_offsets_ns(point, prompts) / NS).tolist() == [0, 0.5, 2.0]


@pytest.mark.parametrize("prompts", [[Prompt()], [Prompt(at_s=2.0), Prompt(at_s=1.0)]])
def test_trace_without_order_is_refused(prompts):
    point = LoadPoint(concurrency=None, arrivals=Arrivals.TRACE)

    with pytest.raises(SpecError):
        arrival_offsets_ns(point, prompts)


@pytest.mark.parametrize(
    "fields",
    [
        {"concurrency": 0},
        {"concurrency": None},
        {"arrivals": Arrivals.POISSON},
        {"arrivals": Arrivals.POISSON, "rate_per_s": -1.0},
        {"burstiness": 0.0},
        {"warmup": -1},
    ],
)
def test_points_that_cannot_be_are_refused(fields):
    with pytest.raises(SpecError):
        LoadPoint(**fields)


def test_shards_share_out_everything_once():
    prompts = [Prompt()] * 23
    point = LoadPoint(concurrency=5, requests=20, warmup=3)

    shares = deal(point, prompts, 2)

    assert sorted(k for share in shares for k in share.indices) == list(range(23))
    assert [share.concurrency for share in shares] == [3, 2]
    assert [share.warmup for share in shares] == [2, 1]


def test_shards_of_an_open_loop_keep_one_schedule():
    prompts = [Prompt()] * 10
    point = open_point(Arrivals.POISSON, seed=5)
    whole = arrival_offsets_ns(point, prompts)

    shares = deal(point, prompts, 3)

    for share in shares:
        assert share.offsets_ns.tolist() == [int(whole[k]) for k in share.indices]


def test_a_conversation_is_never_torn_apart():
    prompts = [Prompt(), Prompt(follows=0), Prompt(), Prompt(follows=1)]

    shares = deal(LoadPoint(concurrency=2), prompts, 2)

    assert [share.indices for share in shares] == [(0, 1, 3), (2,)]


def test_there_are_no_shards_without_streams():
    assert len(deal(LoadPoint(concurrency=2), [Prompt()] * 9, 4)) == 2
