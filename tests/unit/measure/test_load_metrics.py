"""Every metric of a load run against numbers that can be worked out by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_pd.errors import MeasurementError
from pytest_pd.load.calibrate import Calibration, Rhythm, Spread
from pytest_pd.load.external.foreign import ForeignRequest, foreign_result
from pytest_pd.load.point import Arrivals, LoadPoint
from pytest_pd.load.target import Target
from pytest_pd.measure.goodput import (
    Trial,
    goodput,
    goodput_measurements,
    highest_rate,
    search_figures,
    searched,
    slo_of,
)
from pytest_pd.measure.instrument import calibrated
from pytest_pd.measure.latency import (
    itl_s,
    latencies,
    measurements,
    success_share,
    tpot_s,
    ttft_s,
)
from pytest_pd.measure.percentile import percentile, summary, thinned, with_failures
from pytest_pd.measure.trial import measure_point
from pytest_pd.measure.window import steady_window
from pytest_pd.spec.slo import SloSpec
from pytest_pd.spec.workload import WorkloadSpec


def result_of(*requests, concurrency=1, **point):
    """A run whose times are given; start in seconds, events after the start."""
    offered = LoadPoint(concurrency=concurrency, **{"min_waves": 1, **point})
    target = Target(url="http://127.0.0.1:1", model="m")
    # a clock never stands at 0, which means "not sent" in a record
    moved = [replace(r, start_s=r.start_s + 100) for r in requests]
    return foreign_result("given", moved, target, offered)


def request(start=1.0, events=(0.5, 0.6, 0.9), tokens=None, **fields):
    return ForeignRequest(start, tuple(events), 10, tokens or len(events), **fields)


def test_latencies_of_one_request():
    (trace,) = result_of(request()).traces()

    assert ttft_s(trace) == pytest.approx(0.5)
    assert itl_s(trace).tolist() == pytest.approx([0.1, 0.3])
    assert tpot_s(trace) == pytest.approx(0.2)


def test_tpot_divides_by_tokens_not_by_events():
    (trace,) = result_of(request(tokens=9)).traces()

    assert tpot_s(trace) == pytest.approx(0.4 / 6), "three of nine came first"


def test_one_event_has_no_tpot():
    (trace,) = result_of(request(events=(0.5,))).traces()

    with pytest.raises(MeasurementError):
        tpot_s(trace)
    metrics = {m.metric for m in measurements(result_of(request(events=(0.5,))))}
    assert "tpot" not in metrics
    assert "itl" not in metrics


def test_open_loop_tells_latency_from_both_moments():
    result = result_of(
        request(queue_s=0.2),
        concurrency=None,
        arrivals=Arrivals.POISSON,
        rate_per_s=1.0,
    )

    found = latencies(result)
    assert found.ttft[0] == pytest.approx(0.5)
    assert found.ttft_intended[0] == pytest.approx(0.7)
    assert found.e2e_intended[0] == pytest.approx(1.1)
    metrics = {m.metric for m in measurements(result)}
    assert {"ttft_intended", "e2e_intended", "queue"} <= metrics


def test_samples_are_in_the_order_of_ends():
    late, early = request(1.0, (5.0, 6.0)), request(2.0, (0.1, 0.2))

    assert latencies(result_of(late, early)).ttft.tolist() == pytest.approx([0.1, 5.0])


def test_every_sample_is_seconds_and_plain_json():
    for measurement in measurements(result_of(request(), request(3.0))):
        assert measurement.unit.startswith("s")
        assert all(isinstance(s, float) and s >= 0 for s in measurement.samples)
        json.dumps(dict(measurement.extra))


def streams(count=20, concurrency=2):
    """Two streams back to back, each request 1 s of 10 tokens 0.1 s apart."""
    events = [0.1 * (k + 1) for k in range(10)]
    return [request(float(k // concurrency), events) for k in range(count)], concurrency


def test_throughput_is_tokens_over_the_steady_window():
    requests, concurrency = streams()

    named = {
        m.metric: m
        for m in measurements(
            result_of(*requests, concurrency=concurrency),
            gpus={"all": 4, "decode": 2, "prefill": 0},
        )
    }

    found = named["output_token_time"]
    assert found.extra["window_is_steady"]
    assert found.extra["tokens_per_s"] == pytest.approx(20, rel=0.02)
    assert found.extra["tokens_per_s_per_gpu_all"] == pytest.approx(5, rel=0.02)
    assert found.extra["tokens_per_s_per_gpu_decode"] == pytest.approx(10, rel=0.02)
    assert "tokens_per_s_per_gpu_prefill" not in found.extra
    assert np.mean(found.samples) == pytest.approx(1 / 20, rel=0.02)


@given(st.lists(st.floats(0.01, 10), min_size=12, max_size=60))
def test_mean_of_throughput_samples_is_time_by_work(lengths_s):
    starts = np.cumsum([0.0, *lengths_s])
    requests = [
        request(float(at), (length / 2, length))
        for at, length in zip(starts, lengths_s, strict=False)
    ]

    named = {m.metric: m for m in measurements(result_of(*requests))}

    for name, word in (("output_token_time", "tokens"), ("request_time", "requests")):
        rate = named[name].extra[f"{word}_per_s"]
        assert np.mean(named[name].samples) == pytest.approx(1 / rate)
        assert len(named[name].samples) == 10


def test_work_of_one_moment_is_one_sample():
    """Ten requests that end together after a slow one."""
    together = [request(0.0, (2.0, 5.0)) for _ in range(10)]
    result = result_of(*together, request(6.0), request(7.0), concurrency=2)

    named = {m.metric: m for m in measurements(result)}

    assert named["request_time"].samples == pytest.approx((7 / 11,))


def test_tokens_of_coarse_events_count_fully():
    """A request of 100 tokens in 10 events weighs 10 tokens an event."""
    requests, concurrency = streams()
    coarse = [request(r.start_s, r.event_s, tokens=100) for r in requests]

    named = {
        m.metric: m for m in measurements(result_of(*coarse, concurrency=concurrency))
    }

    rate = named["output_token_time"].extra["tokens_per_s"]
    assert rate == pytest.approx(200, rel=0.02)


def test_window_leaves_ramp_up_and_ramp_down_out():
    requests, concurrency = streams(count=10)

    window = steady_window(result_of(*requests, concurrency=concurrency))

    assert window.is_steady
    assert window.seconds == pytest.approx(4.0)


def test_window_begins_when_the_last_stream_has_begun():
    """Streams that begin early have sent many requests before the last one does."""
    streams, ramp_s = 8, 10.0
    starts = [k * ramp_s / streams for k in range(streams)]
    sends = [start + 0.5 * n for start in starts for n in range(40)]

    window = steady_window(
        result_of(
            *(request(at, (0.2, 0.5)) for at in sends),
            concurrency=streams,
            ramp_s=ramp_s,
        )
    )

    assert window.is_steady
    assert window.start_ns / 1e9 - 100 == pytest.approx(8.75)


@pytest.mark.parametrize(("ramp_s", "seconds"), [(0.0, 8.1), (4.0, 4.1)])
def test_open_loop_window_begins_when_as_much_ends_as_begins(ramp_s, seconds):
    """Of sends from 0 to 9 s, 0.9 s long, less the ramp and one request."""
    result = result_of(
        *(request(float(k)) for k in range(10)),
        concurrency=None,
        arrivals=Arrivals.CONSTANT,
        rate_per_s=1.0,
        ramp_s=ramp_s,
    )

    assert steady_window(result).seconds == pytest.approx(seconds)


def test_open_loop_of_long_requests_has_the_rate_that_was_offered():
    """Eight a second, each 5.3 s long: the server is empty at first."""
    found = result_of(
        *(request(k / 8, (0.3, 5.3)) for k in range(200)),
        concurrency=None,
        arrivals=Arrivals.CONSTANT,
        rate_per_s=8.0,
    )
    (rate,) = [m for m in measurements(found) if m.metric == "request_time"]

    assert steady_window(found).is_steady
    assert 1 / np.median(rate.samples) == pytest.approx(8.0, rel=0.02)


def test_tpot_of_events_of_several_tokens_that_nobody_counts():
    """128 tokens in 16 events, 10 ms a token: events are 80 ms apart."""
    events = [0.5 + 0.08 * k for k in range(16)]
    (trace,) = result_of(request(1.0, events, tokens=128)).traces()

    assert tpot_s(trace) == pytest.approx(0.010)


def test_what_hangs_takes_nothing_from_the_goodput_of_others():
    fine = [request(float(k)) for k in range(10)]
    hung = request(5.0, (), error="no end in time")

    found = goodput(result_of(*fine, hung), SloSpec(ttft_ms=1000))

    assert (found.good, found.sent) == (10, 11)
    assert found.window_s == pytest.approx(9.9)


def test_run_that_ends_inside_its_ramp_is_not_steady():
    requests, concurrency = streams(count=10)

    window = steady_window(result_of(*requests, concurrency=concurrency, ramp_s=60.0))

    assert not window.is_steady


def test_run_without_full_load_is_not_steady():
    assert not steady_window(result_of(request(), concurrency=8)).is_steady


def test_too_few_requests_for_the_concurrency_are_invalid():
    requests, _ = streams(count=12)

    few = result_of(*requests, concurrency=4, min_waves=4)
    enough = result_of(*requests, concurrency=2, min_waves=4)

    assert any("no steady state" in reason for reason in few.reasons)
    assert not any("no steady state" in reason for reason in enough.reasons)


def test_streams_that_never_ran_are_invalid():
    result = result_of(request(0.0), request(5.0), concurrency=2)

    assert any("only 1 of 2 streams" in reason for reason in result.reasons)


def test_success_counts_every_request():
    bad = ForeignRequest(9.0, (), 5, 0, error="refused")

    assert success_share(result_of(request(), bad, bad, request(3.0))) == 0.5


# -- percentiles ------------------------------------------------------------------


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.floats(0.1, 100))
def test_percentile_is_a_sample_with_enough_below(values, percent):
    found = percentile(values, percent)

    assert found in values
    at_most = sum(v <= found for v in values)
    assert at_most / len(values) >= percent / 100 - 1e-9


def test_percentiles_by_hand():
    values = [float(k) for k in range(1, 1001)]

    found = summary(values)

    assert (found["p50"], found["p99"], found["p99.9"]) == (500.0, 990.0, 999.0)
    assert (found["min"], found["max"], found["count"]) == (1.0, 1000.0, 1000)


def test_no_samples_have_no_percentile():
    with pytest.raises(MeasurementError):
        percentile([], 50)


def test_failures_count_as_infinitely_slow():
    found = with_failures([1.0] * 90, 10)

    assert found == {"p50": 1.0, "p90": 1.0, "p99": None}


def test_thinning_keeps_the_extremes_and_the_median():
    values = np.random.default_rng(1).exponential(size=100_001)

    kept = thinned(values, 1001)

    assert len(kept) == 1001
    assert (kept[0], kept[-1]) == (values.min(), values.max())
    assert np.median(kept) == np.median(values)


# -- goodput ----------------------------------------------------------------------


def test_goodput_counts_requests_that_met_every_limit():
    fast, slow = request(0.0, (0.1, 0.2)), request(1.0, (0.9, 1.0))
    bad = ForeignRequest(2.0, (), 5, 0, error="refused")

    found = goodput(result_of(fast, slow, bad), SloSpec(ttft_ms=500))

    assert (found.good, found.sent) == (1, 3)
    assert found.share == pytest.approx(1 / 3)
    assert found.misses == {"ttft": 1}
    assert found.requests_per_s == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("slo", "good"),
    [
        ({"ttft_ms": 499}, 0),
        ({"ttft_ms": 501}, 1),
        ({"tpot_ms": 199}, 0),
        ({"tpot_ms": 201}, 1),
        ({"itl_ms": 299}, 0),
        ({"itl_ms": 301}, 1),
        ({"e2e_ms": 899}, 0),
        ({"e2e_ms": 901}, 1),
    ],
)
def test_each_limit_binds(slo, good):
    assert goodput(result_of(request()), SloSpec(**slo)).good == good


def test_open_loop_goodput_counts_the_wait():
    """The user came at the intended time, and the client sent too late."""
    result = result_of(
        request(queue_s=0.3),
        concurrency=None,
        arrivals=Arrivals.POISSON,
        rate_per_s=1.0,
    )

    assert goodput(result, SloSpec(ttft_ms=700)).good == 0


def test_slo_without_limits_is_refused():
    with pytest.raises(MeasurementError):
        goodput(result_of(request()), SloSpec())


@pytest.mark.parametrize("limit", [1.5, 7.0, 60.0])
def test_search_finds_the_highest_good_rate(limit):
    best, trials = highest_rate(
        lambda rate: Trial(rate, rate <= limit, 1.0),
        low_per_s=1.0,
        high_per_s=100.0,
        tolerance=0.05,
        max_trials=20,
    )

    assert best <= limit <= best * 1.05
    assert len(trials) < 12


def test_search_never_tries_a_rate_far_above_what_is_good():
    """A server that got a hundred times its load is busy long after the trial."""
    _, trials = highest_rate(
        lambda rate: Trial(rate, rate <= 3, 1.0), low_per_s=1.0, high_per_s=1000.0
    )

    assert max(trial.rate_per_s for trial in trials) <= 4 * 3


def test_search_that_never_misses_has_found_a_bound():
    best, trials = highest_rate(
        lambda rate: Trial(rate, True, 1.0), low_per_s=1.0, high_per_s=100.0
    )

    assert best == 100.0
    assert search_figures(trials)["is_bound"]
    assert "at least this" in search_figures(trials)["bound"]


def test_search_that_has_missed_is_no_bound():
    missed = [Trial(1.0, True, 1.0), Trial(4.0, False, 0.5)]

    assert not search_figures(missed)["is_bound"]
    assert "bound" not in search_figures(missed)


def test_search_that_fails_at_once_says_so():
    best, trials = highest_rate(
        lambda rate: Trial(rate, False, 0.0), low_per_s=1.0, high_per_s=10.0
    )

    assert best is None
    assert len(trials) == 1


def workload(name, **fields):
    return WorkloadSpec(
        **{"name": name, "input_tokens": 9, "concurrency": [1], "requests": 4, **fields}
    )


def test_open_loop_of_a_topology_is_searched():
    named = [
        workload("closed", slo={"ttft_ms": 1}),
        workload("open", rate_per_s=[2]),
    ]

    assert searched(named).name == "open"


def test_workload_with_an_slo_is_searched_where_no_loop_is_open():
    named = [workload("plain"), workload("promised", slo={"ttft_ms": 1})]

    assert searched(named).name == "promised"


def test_conversations_are_not_searched():
    assert searched([workload("talk", kind="multi_turn", turns=2)]) is None


def test_first_slo_with_a_limit_holds():
    assert slo_of(None, SloSpec(), SloSpec(ttft_ms=7)) == SloSpec(ttft_ms=7)
    assert slo_of(None, SloSpec()) is None


def test_goodput_is_stored_as_time_per_good_request():
    result = result_of(request(0.0, (0.1, 0.2)), request(1.0, (0.9, 1.0)))

    (found,) = goodput_measurements(result, SloSpec(ttft_ms=500))

    assert found.samples == pytest.approx((2.0,))
    assert found.extra["goodput_share"] == 0.5
    assert found.extra["slo"]["ttft_ms"] == 500


def test_goodput_of_nothing_has_no_time():
    assert goodput_measurements(result_of(request()), SloSpec(ttft_ms=1)) == []


# -- calibration beside the result ------------------------------------------------


def calibration_of(p99_s):
    spread = Spread(p99_s / 2, p99_s, p99_s)
    return Calibration(
        rhythm=Rhythm(1, 0.5, 0.1, 4),
        ttft=spread,
        itl=spread,
        itl_alone=spread,
        e2e=spread,
        coalesced_share=0.0,
        send_width_p99_s=0.0,
        read_lag_p99_s=0.0,
        cpu_share=0.1,
        run_queue_s=0.0,
        load_average=0.5,
        stamp_source="kernel",
        scheduling="normal",
        requests=4,
        events=16,
        server_late_p99_s=0.0,
        measured_at_s=0.0,
    )


def test_calibration_is_stored_with_every_measurement():
    result = calibrated(result_of(request(), request(3.0)), calibration_of(0.001))

    assert result.is_valid
    for measurement in measurements(result):
        found = measurement.extra["instrument"]["calibration"]
        assert found["ttft"]["p99_s"] == 0.001


def test_events_of_one_packet_do_not_make_the_instrument_coarse():
    bundled = request(events=(0.5, 0.5, 0.5, 0.5, 0.6))

    result = calibrated(result_of(bundled), calibration_of(0.001))

    assert result.reasons == ()


def test_too_coarse_an_instrument_voids_the_run():
    result = calibrated(result_of(request(), request(3.0)), calibration_of(0.06))

    (itl,) = [r for r in result.reasons if "ITL" in r]
    assert "10%" in itl
    (ttft,) = [r for r in result.reasons if "TTFT" in r]
    assert "60000" in ttft or "6e+04" in ttft


def test_run_that_does_not_hold_is_done_once_more():
    runs, calibrations = [], []
    answers = [calibration_of(0.2), calibration_of(0.001)]

    def run(prompts):
        runs.append(prompts)
        return result_of(request(), request(3.0))

    def calibrate(rhythm, may_be_old):
        calibrations.append(may_be_old)
        return answers[len(calibrations) - 1]

    result = measure_point(run, list, calibrate)

    assert result.is_valid
    assert result.instrument.attempts == 2
    assert calibrations == [True, False], "the second time it is not from the cache"


def test_run_in_which_the_server_failed_is_not_done_again():
    runs = []

    def run(prompts):
        runs.append(prompts)
        failed = [request(5.0, (), error="HTTP 500")] if len(runs) == 1 else []
        return result_of(request(), request(3.0), *failed)

    result = measure_point(run, list, lambda *_: calibration_of(0.2))

    assert len(runs) == 1
    assert success_share(result) < 1


def test_run_that_never_holds_is_invalid_after_two():
    result = measure_point(
        lambda _: result_of(request(), request(3.0)),
        list,
        lambda *_: calibration_of(0.2),
    )

    assert not result.is_valid
    assert result.instrument.attempts == 2


@pytest.mark.parametrize(
    "error", [MeasurementError("The truth is out."), OSError(28, "disk full")]
)
def test_run_that_cannot_be_calibrated_keeps_its_figures(error):
    def calibrate(rhythm, may_be_old):
        raise error

    result = measure_point(lambda _: result_of(request()), list, calibrate)

    assert result.counts() == {"ok": 1}
    (reason,) = [r for r in result.reasons if "could not be calibrated: " in r]
    assert "truth is out" in reason or "disk full" in reason


@pytest.mark.parametrize(
    "error", [MeasurementError("The server is gone."), OSError(28, "disk full")]
)
def test_run_whose_repeat_breaks_keeps_its_figures(error):
    runs = []

    def run(prompts):
        runs.append(prompts)
        if len(runs) > 1:
            raise error
        return result_of(request())

    result = measure_point(run, list, lambda *_: calibration_of(0.2))

    assert len(runs) == 2
    assert result.counts() == {"ok": 1}
    (reason,) = [r for r in result.reasons if "no repeat of it could be" in r]
    assert "server is gone" in reason or "disk full" in reason


def test_first_run_that_breaks_is_told():
    def run(prompts):
        raise MeasurementError("The server is gone.")

    with pytest.raises(MeasurementError, match="server is gone"):
        measure_point(run, list, None)


def test_step_of_a_search_that_does_not_hold_is_done_once_more():
    """A client that was late says nothing about the server."""
    answers = [result_of(request(), concurrency=2), result_of(request())]
    runs = iter(answers)

    result = measure_point(lambda _: next(runs), list, None)

    assert not answers[0].is_valid
    assert result.is_valid
    assert result.instrument.attempts == 2


def test_run_without_success_is_not_repeated():
    bad = ForeignRequest(9.0, (), 5, 0, error="refused")
    runs = []

    def run(prompts):
        runs.append(1)
        return result_of(bad)

    result = measure_point(run, list, lambda *_: calibration_of(0.001))

    assert len(runs) == 1
    assert "none of 1 requests succeeded" in result.reasons[0]
