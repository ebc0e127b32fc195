"""The instrument's error: measured, cached, and enough to void a run."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pytest_pd.errors import MeasurementError
from pytest_pd.load.calibrate import (
    CACHE_S,
    Calibration,
    Rhythm,
    cached,
    calibrate,
    compare,
    outside,
    plan_requests,
)
from pytest_pd.load.point import LoadPoint
from pytest_pd.load.prompts import Prompt
from pytest_pd.load.run import run_load
from pytest_pd.load.target import Target

RHYTHM = Rhythm(concurrency=4, ttft_s=0.01, itl_s=0.005, output_tokens=16)


@pytest.fixture(scope="session")
def calibration():
    return calibrate(RHYTHM, duration_s=0.5)


def test_error_is_the_distance_outside_the_window():
    values, low, high = np.array([1, 5, 9]), np.array([2, 2, 2]), np.array([6, 6, 6])

    assert outside(values, low, high).tolist() == [1, 0, 3]


def test_calibration_compares_every_event(calibration):
    count, events = plan_requests(RHYTHM, 0.5)

    assert calibration.requests == count
    assert calibration.events == count * events
    assert calibration.stamp_source == "kernel"


def test_events_with_a_read_of_their_own_are_exact(calibration):
    """Kernel stamps lie in the truth's window whatever the host's load is."""
    assert calibration.itl_alone.p50_s < 50e-6


def test_a_shifted_clock_would_be_seen(truth):
    """The check can fail: a reading 2 s off is an error of about that."""
    truth.take_log()
    prompts = [Prompt(text=f"a {k}", output_tokens=4) for k in range(4)]
    result = run_load(Target(url=truth.url), LoadPoint(requests=4), prompts)
    result.columns["stamp_ns"][:] += 2_000_000_000

    errors = compare(result, truth.take_log(), 0.005)

    assert (errors.ttft > 1_000_000_000).all()


def test_missing_event_is_no_error_of_zero(truth):
    truth.take_log()
    prompts = [Prompt(text="a", output_tokens=4) for _ in range(4)]
    result = run_load(Target(url=truth.url), LoadPoint(requests=4), prompts)
    result.columns["flags"][1] = 0

    with pytest.raises(MeasurementError, match="sent 4 events"):
        compare(result, truth.take_log(), 0.005)


def test_calibration_survives_json(calibration):
    plain = json.loads(json.dumps(calibration.as_json()))

    assert Calibration.from_json(plain) == calibration
    assert "instrument error" in calibration.line()


def test_runs_alike_share_a_rhythm(truth, load):
    one = Rhythm.of(load(truth.url, requests=7, concurrency=3))
    other = Rhythm.of(load(truth.url, requests=8, concurrency=4))

    assert one.concurrency == other.concurrency == 4
    assert one.output_tokens == 8


def test_cache_is_used_for_an_hour(tmp_path, calibration):
    made = []

    def make(rhythm):
        made.append(rhythm)
        return calibration

    def ask(age_s, **options):
        now = calibration.measured_at_s + age_s
        return cached(
            RHYTHM, directory=tmp_path, make=make, clock=lambda: now, **options
        )

    assert ask(0) == ask(CACHE_S - 1) == calibration
    assert len(made) == 1
    ask(CACHE_S + 1)
    assert len(made) == 2
    ask(1, may_be_old=False)
    assert len(made) == 3
    ask(1, kind="httpx-1")
    assert len(made) == 4


def test_damaged_cache_is_measured_again(tmp_path, calibration):
    cached(RHYTHM, directory=tmp_path, make=lambda _: calibration)
    (path,) = tmp_path.iterdir()
    path.write_text("{")

    assert cached(RHYTHM, directory=tmp_path, make=lambda _: calibration) == calibration


def test_calibration_does_not_go_through_a_proxy(monkeypatch, unused_port):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{unused_port}")
    monkeypatch.setattr("urllib.request._opener", None)  # it remembers the proxies
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)

    assert calibrate(RHYTHM, duration_s=0.2).events


def test_cache_that_cannot_be_written_loses_no_calibration(tmp_path, calibration):
    closed = tmp_path / "file"
    closed.write_text("")

    def ask(folder):
        return cached(RHYTHM, directory=folder, make=lambda _: calibration)

    assert ask(closed / "folder") == calibration


def test_user_without_a_home_is_calibrated(monkeypatch, calibration):
    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)

    assert cached(RHYTHM, make=lambda _: calibration) == calibration


@pytest.mark.parametrize(
    ("rhythm", "least"),
    [
        (Rhythm(64, 0.1, 0.02, 150), 128),
        (Rhythm(1, 5.0, 1.0, 1000), 2),
        (Rhythm(1, 0.001, 0.0001, 4), 100),
    ],
)
def test_plan_has_two_waves_at_least(rhythm, least):
    count, events = plan_requests(rhythm, 2.0)

    assert count >= least
    assert events >= 2
