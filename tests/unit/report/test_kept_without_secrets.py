"""What a run keeps holds no secret, also where it has to be escaped."""

from __future__ import annotations

import json
import stat
from types import SimpleNamespace

import pytest

from pytest_pd.plugin.keeping import keep_environment, keep_outcomes
from pytest_pd.plugin.night import OUTCOMES, Record
from pytest_pd.report.outcome import OUTCOMES_FILE, TestOutcome
from pytest_pd.secret import secrets_in

HARD = 'pla"nt\\ed\n47-11é'
PIECES = ("pla", "nt", "ed", "47-11")


@pytest.fixture
def session(tmp_path, monkeypatch):
    monkeypatch.setenv("A_PLAIN_NAME", HARD)
    secrets = secrets_in({"A": HARD}, also=["A"])
    return SimpleNamespace(run=SimpleNamespace(dir=tmp_path), secrets=secrets)


def test_the_environment_is_masked_and_for_its_owner(session, tmp_path):
    keep_environment(session, "a")

    path = tmp_path / "a" / "environment.json"
    assert json.loads(path.read_text())["variables"]["A_PLAIN_NAME"] == "***"
    assert oct(stat.S_IMODE(path.stat().st_mode)) == "0o600"


def test_outcomes_are_masked(session, tmp_path):
    told = TestOutcome("t", "a", "failed", "call", 0.5, reason=f"no {HARD}")

    keep_outcomes(session, [told])

    text = (tmp_path / OUTCOMES_FILE).read_text()
    assert json.loads(text)["reason"] == "no ***"


def test_the_record_of_a_night_is_masked(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_SECRET", HARD)
    report = pytest.TestReport(
        "t", ("t.py", 1, "t"), {}, "failed", f"no {HARD!r}", "call"
    )

    Record(tmp_path).pytest_runtest_logreport(report)

    text = (tmp_path / OUTCOMES).read_text()
    assert json.loads(text)["reason"] == "no '***'"
