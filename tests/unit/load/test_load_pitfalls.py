"""The seventeen ways in which load generators were seen to deceive; one test each."""

from __future__ import annotations

import gc
import json
import time

import numpy as np
import pytest

from pytest_pd.load.arrivals import arrival_offsets_ns
from pytest_pd.load.clock import AbsoluteTimer
from pytest_pd.load.decode import Reads, decode_stream
from pytest_pd.load.http_message import parse_head
from pytest_pd.load.point import Arrivals, LoadPoint
from pytest_pd.load.prompts import Prompt
from pytest_pd.load.record import Phase
from pytest_pd.load.run import run_load
from pytest_pd.load.target import Target
from pytest_pd.load.truth_process import truth_server
from pytest_pd.measure.latency import itl_s, latencies, measurements, tpot_s, ttft_s
from pytest_pd.measure.percentile import percentile


def test_01_a_stalled_client_is_not_a_slow_server(truth):
    """The client sleeps 60 ms at a time; the readings do not see it."""
    prompts = [Prompt(text=f"a {k}", output_tokens=10) for k in range(24)]
    point = LoadPoint(concurrency=1, requests=24)
    truth.take_log()

    result = run_load(
        Target(url=truth.url), point, prompts, on_tick=lambda _: time.sleep(0.06)
    )

    log = truth.take_log()
    serials = {int(client): int(serial) for serial, client, _, _ in log.requests}
    for trace in result.traces():
        sends = log.sends[log.sends[:, 0] == serials[trace.index]]
        alone = (trace.flags & 2) == 0
        assert (trace.stamp_ns[alone] < sends[alone, 3] + 50_000).all()
    assert result.instrument.read_lag_max_s > 0.02
    assert result.instrument.coalesced_share > 0


def test_02_a_role_event_is_not_the_first_token(load):
    with truth_server("--ttft-ms", "80", "--itl-ms", "2", "--role") as server:
        result = load(server.url, requests=2)

    assert min(map(ttft_s, result.traces())) >= 0.08


def test_03_an_event_is_not_a_token():
    options = ("--ttft-ms", "5", "--itl-ms", "20", "--tokens-per-event", "5")
    with truth_server(*options) as server:
        prompts = [Prompt(text=f"a {k}", output_tokens=30) for k in range(4)]
        point = LoadPoint(concurrency=1, requests=4)
        result = run_load(Target(url=server.url), point, prompts)

    (trace, *_) = result.traces()
    assert len(trace.stamp_ns) == 6, "gaps are between events"
    assert trace.output_tokens == 30
    span = itl_s(trace).sum()
    # no event says how many it brought: the first of six brought a sixth
    assert tpot_s(trace) == pytest.approx(span / 25)
    (ttft, *_) = measurements(result)
    assert ttft.extra["tokens_per_event"] == pytest.approx(5)


def test_04_one_long_gap_is_seen_as_one_long_gap(serve, wire, load):
    words = [wire.text(f"w{k}") for k in range(6)]
    steps = wire.answer(*words, wire.text("x", "stop"), wire.done)
    steps.insert(steps.index(wire.chunk(words[3])), 0.25)
    result = load(serve(steps).url, requests=4)

    gaps = latencies(result).itl
    assert percentile(gaps, 100) >= 0.25
    assert percentile(gaps, 50) < 0.2


def test_05_the_body_is_read_to_its_end_and_the_connection_kept(serve, wire, load):
    """[DONE] comes well before the last chunk; closing there costs a connection."""
    steps = wire.answer(wire.text("a", "stop"), wire.done, pause_s=0.05)
    server = serve(steps)

    result = load(server.url, requests=4)

    assert server.accepted == 1
    assert result.instrument.connections_opened == 1
    assert result.counts() == {"ok": 4}


def test_06_connecting_is_not_part_of_ttft(serve, wire, load):
    """Every answer closes its connection, and the second request must connect."""
    close = wire.head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    answer = [close, wire.chunk(wire.text("a", "stop") + wire.done), wire.end, None]
    server = serve(answer)

    result = load(server.url, requests=4)

    rows = result.rows()
    later = rows[rows["connect_ns"] > 0]
    assert len(later) == 3
    assert len(latencies(result).connect) == 3
    # sent after the connection stood: the gap before the send holds the connect
    gap = later["sent_before_ns"] - later["intended_ns"]
    assert (gap >= later["connect_ns"]).all()


def test_07_one_pool_of_connections_serves_all_requests(truth, load):
    result = load(truth.url, requests=40, concurrency=4)

    assert result.instrument.connections_opened == 4


def test_08_waiting_in_the_client_is_told_and_voids_the_run(truth):
    """One stream for 50 requests a second: they queue here, not at the server."""
    point = LoadPoint(
        concurrency=1, arrivals=Arrivals.CONSTANT, rate_per_s=50, requests=10
    )
    prompts = [Prompt(text=f"a {k}", output_tokens=8) for k in range(10)]

    result = run_load(Target(url=truth.url), point, prompts)

    found = latencies(result)
    assert found.ttft_intended[-1] > found.ttft[-1] + 0.1
    assert np.allclose(found.ttft_intended - found.ttft, found.queue)
    assert any("sent late" in reason for reason in result.reasons)
    assert any("requested rate" in reason for reason in result.reasons)


def test_09_poisson_arrivals_are_not_stretched_to_fit():
    ends = []
    for seed in range(200):
        point = LoadPoint(
            concurrency=None, arrivals=Arrivals.POISSON, rate_per_s=10, seed=seed
        )
        offsets = arrival_offsets_ns(point, [Prompt()] * 101) / 1e9
        assert offsets[0] == 0
        ends.append(offsets[-1])

    # the end of 100 gaps has mean 10 s and standard deviation 1 s
    assert np.mean(ends) == pytest.approx(10, abs=0.3)
    assert 0.7 < np.std(ends) < 1.3


def test_10_nothing_is_sent_before_its_time(truth):
    timer = AbsoluteTimer()
    due = time.monotonic_ns() + 3_000_000
    timer.set(due)
    import select

    poll = select.epoll()
    poll.register(timer.fd, select.EPOLLIN)
    assert poll.poll(5)
    assert time.monotonic_ns() >= due
    poll.close()
    timer.close()

    point = LoadPoint(
        concurrency=None, arrivals=Arrivals.POISSON, rate_per_s=200, requests=30
    )
    prompts = [Prompt(text=f"a {k}", output_tokens=2) for k in range(30)]
    rows = run_load(Target(url=truth.url), point, prompts).rows()
    assert (rows["sent_before_ns"] >= rows["intended_ns"]).all()


def test_11_no_byte_is_lost_where_reads_part(wire):
    """An answer cut at every position says the same."""
    payload = wire.text(" a b") + wire.text(" ") + wire.text(" c", "stop") + wire.done
    raw = wire.head + wire.chunk(payload) + wire.end
    for cut in range(1, len(raw)):
        reads = Reads()
        reads.add(1, 2, cut)
        reads.add(10, 12, len(raw))
        head = parse_head(raw)
        decoded = decode_stream(bytearray(raw), head, reads)
        assert decoded.is_whole
        assert bytes(decoded.answer.text) == b" a b  c"
        assert set(decoded.block["stamp_ns"]) <= {1, 10}


def test_12_usage_done_and_comments_are_no_tokens(serve, wire, load):
    steps = wire.answer(
        b": keep-alive\n\n",
        wire.text("a"),
        b": ping\n\n",
        wire.text("b", "stop"),
        wire.usage(2),
        wire.done,
    )
    result = load(serve(steps).url, requests=4)

    (trace, *_) = result.traces()
    assert len(trace.stamp_ns) == 2
    assert trace.output_tokens == 2
    assert trace.text == "ab"


def test_13_nothing_is_parsed_or_collected_between_events(truth, load, monkeypatch):
    """JSON is read after the request, and the collector is off meanwhile."""
    assert gc.isenabled()
    parsed_at = []
    real = json.loads
    monkeypatch.setattr(
        "pytest_pd.load.sse.json.loads",
        lambda data: parsed_at.append(time.monotonic_ns()) or real(data),
    )

    result = load(truth.url, requests=4)

    ends = result.rows()["end_ns"]
    starts = result.rows()["sent_before_ns"]
    for at in parsed_at:
        # in no request but the one that is already over
        assert not ((starts + 25_000_000 < at) & (at < ends)).any()
    assert result.instrument.collections == 0
    assert gc.isenabled()


def test_14_the_client_has_no_cap_of_its_own(truth):
    prompts = [Prompt(text=f"a {k}", output_tokens=30) for k in range(400)]
    truth.take_log()

    result = run_load(
        Target(url=truth.url), LoadPoint(concurrency=200, requests=400), prompts
    )

    log = truth.take_log()
    first = np.array(
        [log.sends[log.sends[:, 0] == s][0, 2] for s in log.requests[:, 0]]
    )
    last = np.array(
        [log.sends[log.sends[:, 0] == s][-1, 2] for s in log.requests[:, 0]]
    )
    at_once = max(((first <= t) & (last >= t)).sum() for t in first)
    assert at_once > 150, "seen by the server"
    assert result.instrument.most_in_flight == 200
    assert not any("were ever in flight" in reason for reason in result.reasons)


def test_15_shards_join_samples_not_percentiles(truth):
    prompts = [Prompt(text=f"a {k}", output_tokens=4) for k in range(12)]
    point = LoadPoint(concurrency=4, requests=12, min_waves=1)

    result = run_load(Target(url=truth.url), point, prompts, shards=2)

    assert set(result.rows()["shard"]) == {0, 1}
    assert len(latencies(result).itl) == 12 * 3
    named = {m.metric: m for m in measurements(result)}
    percentiles = named["itl"].extra["percentiles_s"]
    assert percentiles["p50"] == percentile(np.array(named["itl"].samples), 50)
    assert percentiles["p50"] in named["itl"].samples


def test_16_failures_stay_in_the_denominators(serve, wire, load):
    good = wire.answer(wire.text("a", "stop"), wire.done)
    bad = [b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n{}"]
    result = load(serve(good, good, bad, good, good).url, requests=4, warmup=1)

    assert len(result.rows(Phase.WARMUP)) == 1
    assert result.counts() == {"ok": 3, "http_status": 1}
    named = {m.metric: m for m in measurements(result)}
    assert named["ttft"].extra["success_share"] == 0.75
    inflated = named["ttft"].extra["percentiles_failed_are_infinite_s"]
    assert inflated["p99"] is None
    assert inflated["p50"] is not None


def test_17_what_the_client_used_goes_with_every_result(truth, load):
    result = load(truth.url, requests=4)

    for measurement in measurements(result):
        instrument = measurement.extra["instrument"]
        assert 0 < instrument["cpu_share"] < 1
        assert instrument["cores"] >= 1
        for name in ("run_queue_s", "steal_s", "load_average", "send_width_p99_s"):
            assert instrument[name] >= 0
