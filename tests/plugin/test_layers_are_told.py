"""Which layer broke is in the outcome, in verdict.json and in JUnit."""

from __future__ import annotations

import json

import pytest

from pytest_pd.errors import (
    BackendMissing,
    InfrastructureLost,
    InvalidRun,
    ProcessDied,
    ReadyTimeout,
    SpecError,
)
from pytest_pd.plugin.layer import layer_of
from pytest_pd.plugin.verdict import Blocked

SUITE = """
import pytest
from pytest_pd.errors import InfrastructureLost, InvalidRun

def test_good(deployment): pass
def test_content(deployment): assert 0
@pytest.mark.accuracy
def test_score(deployment): assert 0
@pytest.mark.performance
def test_speed(deployment): assert 0
def test_client(deployment): raise InvalidRun("no.")
def test_lost(deployment): raise InfrastructureLost("gone.")
"""


@pytest.mark.parametrize(
    ("error", "when", "was_up", "layer"),
    [
        (InfrastructureLost("x"), "setup", False, "infra"),
        (InfrastructureLost("x"), "call", True, "infra"),
        (BackendMissing("x"), "setup", False, "infra"),
        (ReadyTimeout("x"), "setup", False, "provision"),
        (ProcessDied("x"), "setup", False, "provision"),
        (ProcessDied("x"), "setup", True, "server"),
        (ProcessDied("x"), "call", True, "server"),
        (InvalidRun("x"), "call", True, "client"),
        (SpecError("x"), "setup", False, "client"),
        (KeyError("x"), "setup", False, "client"),
        (AssertionError(), "call", True, "server"),
    ],
    ids=str,
)
def test_what_an_error_speaks_of(error, when, was_up, layer):
    assert layer_of(error, when=when, was_up=was_up) == layer


def test_a_blocked_test_has_the_layer_of_its_cause():
    error = Blocked("x")
    error.__cause__ = InfrastructureLost("gone.")

    assert layer_of(error, when="setup", was_up=True) == "infra"


@pytest.fixture
def told(project):
    project.suite(SUITE)
    project.run("--junitxml=j.xml")
    (run,) = project.pytester.path.glob("runs/*")
    return run, (project.pytester.path / "j.xml").read_text()


def test_every_outcome_has_its_layer(told):
    lines = (told[0] / "results.jsonl").read_text().splitlines()
    found = {o["nodeid"].split("::")[1][:9]: o["layer"] for o in map(json.loads, lines)}

    assert found == {
        "test_good": "",
        "test_cont": "server",
        "test_scor": "accuracy",
        "test_spee": "performance",
        "test_clie": "client",
        "test_lost": "infra",
    }


def test_the_verdict_counts_layers(told):
    verdict = json.loads((told[0] / "verdict.json").read_text())

    assert verdict["layers"]["accuracy"] == 1
    assert verdict["gate"] == ""


def test_junit_has_the_layer(told):
    assert 'name="pd_layer" value="performance"' in told[1]


def test_a_broken_bring_up_is_provision(project, monkeypatch):
    monkeypatch.setenv("FAKE_BROKEN", "local_1p1d")
    project.suite()
    project.run()
    (run,) = project.pytester.path.glob("runs/*")
    lines = (run / "results.jsonl").read_text().splitlines()

    assert {json.loads(line)["layer"] for line in lines} == {"provision"}
