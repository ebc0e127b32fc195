"""``pytest-pd nightly`` over a project whose topologies cost nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.kit import wait_until

SUITE = """
import pytest
from pathlib import Path
from pytest_pd.errors import InfrastructureLost, InvalidRun

COUNT = Path(__file__).parent / "count"

def calls(name):
    path = Path(f"{COUNT}-{name}")
    path.write_text(path.read_text() + "x" if path.exists() else "x")
    return len(path.read_text())

def test_good(deployment): calls("good")
def test_plain(): calls("plain")
"""
LOST = (
    SUITE
    + """
def test_lost(deployment):
    if calls("lost") == 1:
        raise InfrastructureLost("node n3 is gone.")
"""
)
BAD = (
    SUITE
    + """
def test_bad(deployment):
    calls("bad")
    assert 1 == 2
"""
)
ENTRY = """
quarantine:
- test: "*::test_bad[[]*"
  owner: ana
  reason: issue 7
  expires: {day}
""".replace("[[]", "[")


class Night:
    """Calls of the command in one project."""

    def __init__(self, project):
        self.project, self.path = project, project.pytester.path

    def start(self, *words, options=()):
        argv = [sys.executable, "-m", "pytest_pd.cli", "nightly", *options, "--"]
        return subprocess.Popen(
            [*argv, *words],
            cwd=self.path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    def run(self, *words, options=()):
        with self.start(*words, options=options) as child:
            said, _ = child.communicate(timeout=120)
        return child.returncode, said

    def calls(self, name):
        path = self.path / f"count-{name}"
        return len(path.read_text()) if path.exists() else 0

    def record(self):
        path = max(self.path.glob("nights/*/nightly.json"))
        return json.loads(path.read_text())


@pytest.fixture
def night(project):
    return Night(project)


def test_a_green_night_keeps_a_record_that_tells_the_next_one(night):
    night.project.suite(SUITE)

    code, said = night.run()

    assert code == 0, said
    assert [t["verdict"] for t in night.record()["tests"]] == ["passed", "passed"]
    (folder,) = night.path.glob("nights/*")
    assert {"summary.md", "junit.xml", "nightly.json"} <= {
        path.name for path in folder.iterdir()
    }

    code, said = night.run(options=["--budget", "1h"])
    assert code == 0, said
    assert "2 tests: about" in said


def test_infrastructure_is_tried_again_and_nothing_else(night):
    night.project.suite(LOST)

    code, said = night.run()

    assert code == 0, said
    assert (night.calls("lost"), night.calls("good")) == (2, 1)
    assert list(night.record()["flaky"].values()) == ["node n3 is gone."]
    assert "Green after infrastructure broke them" in said


def test_tests_that_never_ran_keep_a_night_from_being_green(night):
    night.project.suite(LOST + "\ndef test_z_never(): pass\n")

    code, said = night.run("-x")

    assert code == 31, said
    assert night.calls("lost") == 2
    assert "listed test(s) have no result" in said


def test_retries_end(night):
    night.project.suite(LOST)

    code, said = night.run(options=["--retries", "0"])

    assert code == 11, said
    assert "failed (infra)" in said


def test_content_is_never_tried_again(night):
    night.project.suite(BAD)

    code, said = night.run(options=["--retries", "3"])

    assert code == 13, said
    assert night.calls("bad") == 1


def test_quarantine_is_told_apart(night):
    night.project.suite(BAD)
    (night.path / "q.yaml").write_text(ENTRY.format(day=in_days(30)))

    code, said = night.run(options=["--quarantine", "q.yaml"])

    assert code == 30, said
    assert "In quarantine, and not green" in said


def test_an_expired_quarantine_starts_nothing(night):
    night.project.suite(BAD)
    (night.path / "q.yaml").write_text(ENTRY.format(day=in_days(-2)))

    code, said = night.run(options=["--quarantine", "q.yaml"])

    assert code == 2, said
    assert "expired on" in said
    assert not night.project.ledger


def test_a_budget_that_earlier_nights_call_too_short_starts_nothing(night):
    night.project.suite(SUITE)
    assert night.run()[0] == 0

    code, said = night.run(options=["--budget", "0.01s"])

    assert code == 32, said
    assert night.calls("good") == 1


def test_words_that_pytest_refuses_start_nothing(night):
    night.project.suite(SUITE)

    code, said = night.run("--pd-topology", "nosuch")

    assert code == 2, said
    assert "'nosuch' is not known" in said
    assert "Traceback" not in said


def test_the_end_of_the_budget_takes_everything_down(night):
    night.project.suite(SUITE + "\ndef test_z(deployment): import time; time.sleep(99)")

    code, said = night.run(options=["--budget", "15s"])

    assert code == 33, said
    assert night.project.ups() == night.project.downs() == ["local_1p1d"]
    assert "ended by the time budget" in said


def test_sigterm_takes_everything_down(night):
    night.project.suite("def test_z(deployment): import time; time.sleep(99)")
    with night.start() as child:
        wait_until(night.project.ups, "the topology")
        child.send_signal(signal.SIGTERM)
        said, _ = child.communicate(timeout=60)

    assert child.returncode == 130, said
    assert night.project.downs() == ["local_1p1d"]


def test_xdist_tells_the_same(night):
    night.project.suite(LOST)

    code, said = night.run("-n", "2")

    assert code == 0, said
    assert night.calls("lost") == 2


def in_days(days):
    from datetime import UTC, datetime, timedelta

    return (datetime.now(UTC) + timedelta(days=days)).date().isoformat()
