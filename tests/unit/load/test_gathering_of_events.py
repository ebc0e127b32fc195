"""Events may pile up for a moment, and never two of one stream."""

from __future__ import annotations

from array import array

import pytest

from pytest_pd.load.engine import KernelEngine
from pytest_pd.load.gather import LONGEST_NS, Gather, shortest_gap_ns
from pytest_pd.load.point import LoadPoint
from pytest_pd.load.prompts import Prompt
from pytest_pd.load.run import run_load
from pytest_pd.load.target import Target

SECOND_NS = 1_000_000_000


def reads(*kernel_ns: int) -> array[int]:
    return array("q", [word for at in kernel_ns for word in (at, at + 9, 100)])


def test_gap_is_the_shortest_between_two_last_reads():
    assert shortest_gap_ns([reads(10, 50), reads(7, 20, 50)]) == 30


def test_streams_with_one_read_say_nothing():
    assert shortest_gap_ns([reads(10), reads()]) is None


def test_a_missing_stamp_is_a_gap_of_nothing():
    assert shortest_gap_ns([reads(0, 0), reads(10, 50)]) == 0


@pytest.mark.parametrize(
    ("gap_ns", "pause_ns"),
    [
        pytest.param(20_000_000, LONGEST_NS, id="never above the limit"),
        pytest.param(4_000_000, 500_000, id="a part of the gap"),
        pytest.param(200_000, 0, id="too short to be worth a call"),
        pytest.param(0, 0, id="no stamps"),
        pytest.param(None, 0, id="no streams"),
    ],
)
def test_pause_follows_the_gap(gap_ns, pause_ns):
    gather = Gather()
    gather.look(gap_ns, 3200, SECOND_NS)
    assert gather.pause_ns == pause_ns


def test_few_events_are_not_waited_for():
    gather = Gather()
    gather.look(20_000_000, 600, SECOND_NS)
    assert gather.pause_ns == 0


def test_one_short_gap_is_remembered_for_some_looks():
    gather = Gather()
    gather.look(20_000_000, 9000, SECOND_NS)
    gather.look(100_000, 9000, SECOND_NS)
    gather.look(20_000_000, 9000, SECOND_NS)
    assert gather.pause_ns == 0
    for _ in range(5):
        gather.look(20_000_000, 9000, SECOND_NS)
    assert gather.pause_ns == LONGEST_NS


def test_what_piles_up_loses_no_event_and_no_stamp(truth, monkeypatch):
    pauses = []
    real = KernelEngine._pause
    monkeypatch.setattr(
        KernelEngine,
        "_pause",
        lambda engine, pause_ns: pauses.append(pause_ns) or real(engine, pause_ns),
    )
    prompts = [Prompt(text=f"a {k}", output_tokens=120) for k in range(32)]

    result = run_load(
        Target(url=truth.url), LoadPoint(concurrency=32, requests=32), prompts
    )

    assert pauses
    assert max(pauses) <= LONGEST_NS
    assert result.counts() == {"ok": 32}
    assert result.rows()["output_tokens"].sum() == 32 * 120
