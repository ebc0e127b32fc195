"""What ``pytest-pd load`` says of a point that was measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_pd.load.point import LoadPoint
from pytest_pd.load.prompts import Prompt
from pytest_pd.load.result import ENDS_ONLY
from pytest_pd.load.run import run_load
from pytest_pd.load.target import Target
from pytest_pd.load.truth_process import truth_server
from pytest_pd.spec.slo import SloSpec
from pytest_pd.terminal.shown import figures_of, show
from pytest_pd.terminal.view import plain_point


@pytest.fixture(scope="module")
def result():
    prompts = [Prompt(text=f"a {k}", output_tokens=4) for k in range(4)]
    with truth_server("--ttft-ms", "5", "--itl-ms", "1") as server:
        yield run_load(Target(url=server.url), LoadPoint(requests=4), prompts)


def test_a_goodput_that_cannot_be_counted_voids_the_point_and_keeps_its_figures(result):
    instrument = replace(result.instrument, stamp_source=ENDS_ONLY)

    judged, figures = figures_of(
        replace(result, instrument=instrument), SloSpec(itl_ms=50)
    )

    assert not judged.is_valid
    assert "first and last" in judged.reasons[-1]
    assert figures["measurements"]
    assert "goodput" not in figures


def test_goodput_stands_beside_the_figures(result):
    judged, figures = figures_of(result, SloSpec(ttft_ms=1000))

    assert judged is result
    assert figures["goodput"].share == 1


def test_what_a_server_says_of_a_failure_is_masked(result, monkeypatch, capsys):
    monkeypatch.setenv("API_KEY", "sk-planted0123456789")
    failed = replace(result, errors={3: "HTTP 401: bad key sk-planted0123456789"})

    entry = plain_point("c1", failed, {})
    show("c1", failed, entry)

    assert entry["errors"] == {"3": "HTTP 401: bad key ***"}
    assert "failure of request 3: HTTP 401: bad key ***" in capsys.readouterr().out
