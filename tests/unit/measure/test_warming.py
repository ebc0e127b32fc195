"""Waves of requests until two agree, once for each shape of each endpoint."""

from __future__ import annotations

import pytest

from pytest_pd.load.external.foreign import ForeignRequest, foreign_result
from pytest_pd.load.point import Arrivals, LoadPoint
from pytest_pd.load.target import Target
from pytest_pd.load.workload import SweepPoint, sweep
from pytest_pd.measure.warm import (
    MOST,
    Warmer,
    agree,
    shape_of,
    warm_up,
    wave_of,
    with_warm_up,
)
from pytest_pd.spec.workload import WorkloadSpec


def result_of(ttft_s: float, *, fails: bool = False):
    events = () if fails else (ttft_s, ttft_s + 0.1)
    request = ForeignRequest(100.0, events, 10, 2, error="no" if fails else "")
    target = Target(url="http://127.0.0.1:1", model="m")
    return foreign_result("given", [request], target, LoadPoint(min_waves=1))


def waves(*ttfts_s: float):
    """A server whose waves have these TTFTs; the last repeats."""
    left = list(ttfts_s)
    return lambda: result_of(left.pop(0) if len(left) > 1 else left[0])


@pytest.mark.parametrize(
    ("medians", "is_so"),
    [((1.0,), False), ((9.0, 1.0, 1.2), True), ((1.0, 1.3), False), ((2, 1), False)],
)
def test_last_two_have_to_agree(medians, is_so):
    assert agree(medians) is is_so


def test_a_warm_server_takes_two_waves():
    found = warm_up(waves(0.1))
    assert (found.as_json()["waves"], found.is_stable) == (2, True)


def test_waves_go_on_while_they_get_faster():
    found = warm_up(waves(9.0, 1.0, 0.3, 0.1, 0.1))
    assert len(found.ttft_s) == 5
    assert found.is_stable
    assert "warmed by 5 waves, stable" in found.line()


def test_what_never_settles_is_given_up_and_told():
    left = iter(2.0**k for k in range(20))
    found = warm_up(lambda: result_of(next(left)))
    assert len(found.ttft_s) == MOST
    assert "NOT stable" in found.line()


def test_a_server_that_answers_nothing_is_left_alone():
    asked = []
    found = warm_up(lambda: asked.append(1) or result_of(0, fails=True))
    assert len(asked) == 1
    assert not found.is_stable


def test_each_shape_is_warmed_once():
    asked = []
    warmer = Warmer()
    for shape in ("a", "a", "b", None):
        warmer.warm(shape, lambda: asked.append(1) or result_of(0.1))
    assert len(asked) == 4


def test_shape_is_endpoint_lengths_and_streams():
    spec = WorkloadSpec(name="w", input_tokens=9, concurrency=[1, 2], requests=8)
    other = spec.model_copy(update={"endpoint": "chat"})
    one, two = sweep(spec)
    shapes = {shape_of("u", s, p) for s in (spec, other) for p in (one, two)}
    assert len(shapes) == 4
    assert shape_of("u", spec, one) == shape_of("u", spec, one)


def test_a_wave_asks_each_stream_once_in_a_closed_loop():
    open_loop = LoadPoint(
        concurrency=None, arrivals=Arrivals.POISSON, rate_per_s=9, requests=100
    )
    wave = wave_of(SweepPoint("r9", "quick", open_loop)).load
    assert (wave.arrivals, wave.concurrency, wave.requests) == ("closed", 4, 4)
    many = LoadPoint(concurrency=32, requests=320, warmup=64)
    wave = wave_of(SweepPoint("c32", "quick", many)).load
    assert (wave.concurrency, wave.requests, wave.warmup) == (32, 32, 0)


def test_result_tells_how_the_server_was_warmed():
    found = with_warm_up(result_of(0.1), warm_up(waves(0.1)))
    assert found.instrument.warm_up["is_stable"] is True
