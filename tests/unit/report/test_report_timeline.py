"""The timeline: lanes of workers where the proxy's log tells, else of phases."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from datetime import datetime

import numpy as np
import pytest

from pytest_pd.load.point import LoadPoint
from pytest_pd.load.record import EVENT_COLUMNS, REQUEST, Event, Outcome, Phase
from pytest_pd.load.result import Instrument, LoadResult
from pytest_pd.report.draw import draw, table_of
from pytest_pd.report.read import read_run
from pytest_pd.report.timeline import Stay, choose, lay_out, packed, timeline_of
from tests.run_kit import PLAN, write_run

START_S = 1_790_000_000.0
MS = 1_000_000
ENDPOINTS = [
    {"service": "prefill-0", "role": "prefill", "url": "http://h:1"},
    {"service": "decode-0", "role": "decode", "url": "http://h:3"},
]


def result(count=4, streams=2, **more):
    """Return `count` requests, 100 ms apart: first token after 60, end after 90 ms."""
    rows = np.zeros(count, REQUEST)
    sent = (1 + np.arange(count)) * 100 * MS
    rows["phase"], rows["outcome"] = Phase.MEASURED, Outcome.OK
    rows["sent_before_ns"], rows["end_ns"] = sent, sent + 90 * MS
    rows["event_start"], rows["event_count"] = np.arange(count), 1
    columns = {name: np.zeros(count, kind) for name, kind in EVENT_COLUMNS.items()}
    columns["stamp_ns"][:] = sent + 60 * MS
    columns["flags"][:] = Event.CONTENT
    return LoadResult(
        point=LoadPoint(concurrency=streams),
        url="",
        model="",
        endpoint="",
        tokenizer="",
        started_at_s=START_S,
        requests=rows,
        columns=columns,
        texts=b"",
        errors={},
        instrument=Instrument("kernel", "kernel", *[0] * 22),
        **more,
    )


def log(count=4, shift_s=0.0):
    """Return what the proxy logs of them: prefill took 40 ms."""
    lines = []
    for index in range(count):
        ended_s = START_S + 0.1 * index + 0.09 + shift_s
        when = datetime.fromtimestamp(ended_s).strftime("%Y-%m-%d %H:%M:%S,%f")[:-3]
        lines.append(
            f"{when} INFO pytest_pd.proxy: request id=pd-{index} route=/v1/completions "
            "status=200 outcome=ok prefill=http://h:1 decode=http://h:3 queue_ms=0.0 "
            "prefill_ms=40.0 first_byte_ms=60.0 total_ms=90.0 pieces=1"
        )
    return "\n".join(lines) + "\n"


def make(path, text="", results=None):
    plan = PLAN | {"endpoints": ENDPOINTS}
    run = write_run(path, plan=plan)
    (run / "local_1p1d" / "logs" / "router.log").write_text(text)
    for name, one in (results or {"test-a--sweep-c2": result()}).items():
        one.save(run / "local_1p1d" / "load" / f"{name}.npz")
    (topology,) = read_run(run).topologies
    return topology


def spans(chart, kind):
    return [(s.start_s, s.end_s) for s in chart.spans if chart.kinds[s.kind] == kind]


def test_lanes_are_workers_where_the_log_tells(tmp_path):
    chart = timeline_of(make(tmp_path / "r", log()))

    assert [name for name, _ in chart.lanes] == ["prefill-0", "decode-0"]
    assert spans(chart, "prefill")[0] == pytest.approx((0.0, 0.04))
    assert spans(chart, "hand-over and first token")[0] == pytest.approx((0.04, 0.06))
    assert spans(chart, "decode")[1] == pytest.approx((0.16, 0.19))
    assert "first 4 of 4" in chart.title


@pytest.mark.parametrize("text", ["", log(3), log(shift_s=60)])
def test_lanes_are_phases_unless_every_request_is_in_the_log(tmp_path, text):
    chart = timeline_of(make(tmp_path / "r", text))

    assert [name for name, _ in chart.lanes] == ["prefill", "decode"]
    assert "prefill" not in chart.kinds
    assert spans(chart, "decode")[0] == pytest.approx((0.06, 0.09))


def test_busiest_closed_loop_that_holds_is_shown(tmp_path):
    results = {
        "a--few": result(streams=1),
        "b--many": result(streams=3),
        "c--coarse": result(streams=9, reasons=("too coarse",)),
        "d--many-alone": result(streams=9),
    }
    topology = make(tmp_path / "r", results=results)
    (topology.folder / "load" / "torn.npz").write_bytes(b"PK")

    path, _ = choose(topology.folder)

    assert path.stem == "b--many"


def test_no_records_no_timeline(tmp_path):
    topology = make(tmp_path / "r")
    for path in (topology.folder / "load").iterdir():
        path.unlink()

    assert timeline_of(topology) is None


def test_rows_are_few_and_never_overlap():
    stretches = [(0.0, 2.0), (1.0, 3.0), (2.0, 4.0), (0.5, 0.6), (0.7, 1.0)]

    assert packed(stretches) == [0, 1, 0, 1, 1]


def test_timeline_is_drawn_with_a_folded_table():
    stays = [
        Stay(i, "prefill-0", "decode-<0>", i, i + 0.4, i + 0.5, i + 1.5)
        for i in range(70)
    ]
    chart = lay_out(stays, "title", known=True)

    drawn = draw(chart)

    ET.fromstring(drawn)
    assert drawn.count("<rect") == 3 * 70 + 3
    assert "<details>" in table_of(chart)
    assert "<0>" not in drawn
