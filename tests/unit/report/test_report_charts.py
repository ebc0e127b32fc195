"""Charts beside the sweeps: routing, bandwidth, accuracy, refits, instrument."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest

from pytest_pd.report.chart import Axis, Bar, Bars, Plot, Series
from pytest_pd.report.collect import PAIRS, topology_charts
from pytest_pd.report.counters import bandwidth, pages_of, routing
from pytest_pd.report.draw import draw, table_of, with_table
from pytest_pd.report.outcome_charts import accuracy, instrument, refits, wilson
from pytest_pd.report.page import make_page
from pytest_pd.report.points import points_of
from pytest_pd.report.read import read_run
from tests.run_kit import PLAN, entry, entry_of, passed, write_run

ENDPOINTS = [
    {"service": "prefill-0", "role": "prefill", "url": "http://h:1"},
    {"service": "prefill-1", "role": "prefill", "url": "http://h:2"},
    {"service": "decode-0", "role": "decode", "url": "http://h:3"},
]
SERVICES = [
    *({"name": e["service"], "role": e["role"], "node": "n"} for e in ENDPOINTS),
    {"name": "router", "role": "router", "node": "n"},
]
REQUESTS = "vllm:request_success_total"


def make(path, pages=(), entries=()):
    """Return a topology record; `pages` is (service, when, text)."""
    plan = PLAN | {"services": SERVICES, "endpoints": ENDPOINTS}
    run = write_run(path, entries=entries, verdict=passed(), plan=plan)
    folder = run / "local_1p1d" / "metrics"
    folder.mkdir()
    for service, when, text in pages:
        (folder / f"{service}-{when}.txt").write_text(text + "\n")
    (topology,) = read_run(run).topologies
    return topology


def values(chart):
    return {bar.label: bar.value for bar in chart.bars}


def test_workers_count_where_the_router_does_not(tmp_path):
    pages = [
        (name, when, f'{REQUESTS}{{reason="length"}} {count}')
        for name, counts in {"prefill-0": (2, 12), "prefill-1": (0, 30)}.items()
        for when, count in zip(("ready", "end"), counts, strict=True)
    ]
    topology = make(tmp_path / "r", pages)

    chart = routing(topology, pages_of(topology.folder))

    assert values(chart) == {"prefill-0": 10, "prefill-1": 30}
    assert {bar.mark for bar in chart.bars} == {20}


def test_routers_word_counts_first_and_ranks_belong_to_their_worker(tmp_path):
    name = "vllm_router_pd_prefill_requests_total"
    end = f'{name}{{worker="http://h:1@0"}} 5\n{name}{{worker="http://h:1@1"}} 6'
    topology = make(tmp_path / "r", [("router", "ready", ""), ("router", "end", end)])

    chart = routing(topology, pages_of(topology.folder))

    assert values(chart) == {"prefill-0": 11, "prefill-1": 0}


def test_service_that_never_got_ready_has_no_pages(tmp_path):
    topology = make(tmp_path / "r", [("prefill-0", "end", f"{REQUESTS} 5")])

    assert pages_of(topology.folder) == {}
    assert routing(topology, {}).bars == ()


def test_bandwidth_is_bytes_by_time_in_transfers(tmp_path):
    moved = "vllm:nixl_bytes_transferred_sum {}\nvllm:nixl_xfer_time_seconds_sum {}"
    pages = [
        ("decode-0", "ready", moved.format(1e6, 1)),
        ("decode-0", "end", moved.format(5e6, 3)),
    ]
    floor = entry(
        "kv_handover_bound", [1e-7], bytes=1_000_000, bytes_per_s_at_least=7e6
    )
    topology = make(tmp_path / "r", pages, [floor])

    chart = bandwidth(topology, pages_of(topology.folder))

    assert [bar.value for bar in chart.bars] == [2.0, 7.0]
    assert "at least" in chart.bars[1].label


def test_score_has_the_interval_of_its_sample_size():
    found = entry_of("eval_sample", [0.1] * 200, score=0.9, n=200)

    (bar,) = accuracy([found]).bars

    assert bar.value == 90
    assert (bar.low, bar.high) == pytest.approx((85.06, 93.43), abs=0.01)


def test_standard_error_counts_where_it_is_told():
    found = entry_of("eval_sample", [0.1], score=0.5, stderr=0.1, threshold=0.4)

    (bar,) = accuracy([found]).bars

    assert (bar.low, bar.high, bar.mark) == pytest.approx((30.4, 69.6, 40), abs=0.01)


def test_same_questions_to_aggregated_stand_beside():
    pairs = [{"right_aggregated": i > 0} for i in range(10)]

    (bar,) = accuracy([], pairs).bars

    assert bar.value == 90
    assert "aggregated (n = 10)" in bar.label


@pytest.mark.parametrize(("right", "low", "high"), [(0, 0, 0.2775), (10, 0.7225, 1)])
def test_interval_of_nothing_and_of_everything(right, low, high):
    assert wilson(right, 10) == pytest.approx((low, high), abs=1e-4)


def test_refit_stands_against_its_bound():
    found = entry_of("refit", [0.03, 0.02, 0.05], bound_s=0.004, point="")
    row = {"name": "s1", "status": "verified", "refit_s": [1.0], "bound_s": 0.5}
    wrong = row | {"status": "damaged"}

    chart = refits([found], [row, wrong])

    assert [(b.low, b.value, b.high, b.mark) for b in chart.bars] == [
        pytest.approx((20, 30, 50, 4)),
        pytest.approx((1000, 1000, 1000, 500)),
    ]


def test_error_of_the_instrument_stands_beside_what_it_measured(tmp_path):
    truth = {"calibration": {"itl": {"p99_s": 2e-5}}}
    entries = [entry("itl", [0.002] * 9, streams=n, instrument=truth) for n in (1, 4)]
    run = read_run(write_run(tmp_path / "r", entries=entries))

    lines = {s.name: s.points for s in instrument(points_of([run])).series}

    assert lines["ITL error, p99"] == ((1, pytest.approx(0.02)), (4, 2e-5 * 1e3))
    assert lines["ITL measured, p50"] == ((1, 2.0), (4, 2.0))


def bars(**more):
    given = (
        Bar("<a>", 3.0, 2.0, 4.0, mark=1.0),
        Bar("b", 30.0, group=1),
    )
    return Bars("n", "T & t", Axis("ms", **more), given, interval="range", mark="bound")


@pytest.mark.parametrize("is_log", [True, False])
def test_bars_are_drawn_with_interval_mark_and_table(is_log):
    chart = bars(is_log=is_log)

    drawn = draw(chart)

    ET.fromstring(drawn)
    assert drawn.count('class="whisker"') == 2  # one in the key
    assert drawn.count('class="bound"') == 2
    assert "<a>" not in drawn
    for words in ("&lt;a&gt;", "3.00", "2.00", "4.00", "bound"):
        assert words in table_of(chart)


def test_chart_without_values_is_no_part_of_the_page():
    assert with_table(Bars("n", "t", Axis("ms"), ())) == ""


def test_change_point_is_a_rule_with_words():
    series = (Series("a", ((1.0, 1.0), (2.0, 2.0))),)
    chart = Plot("n", "t", Axis("x"), Axis("y"), series, marks=((1.5, "+ 10 %"),))

    drawn = draw(chart)

    ET.fromstring(drawn)
    assert 'class="rule"' in drawn
    assert "+ 10 %" in drawn


def test_page_shows_the_charts_of_a_topology(tmp_path):
    pages = [("prefill-0", w, f"{REQUESTS} {n}") for w, n in (("ready", 0), ("end", 9))]
    topology = make(tmp_path / "r", pages, [entry("eval_sample", score=0.5, point="")])
    (topology.folder / PAIRS).parent.mkdir()
    (topology.folder / PAIRS).write_text(json.dumps([{"right_aggregated": 1}]))
    (topology.folder / "outcomes.json").write_text("{torn")

    names = [chart.name for chart in topology_charts(topology, [])]
    page = make_page([read_run(tmp_path / "r")], tmp_path / "r")

    assert names == ["routing", "accuracy"]
    assert "Requests per worker" in page
    assert "the same questions, aggregated" in page
