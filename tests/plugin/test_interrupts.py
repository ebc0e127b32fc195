"""SIGINT, SIGTERM and SIGHUP take down and report; a crash never starts twice."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

WAIT_S = 120
"""Long enough for a machine on which much else runs."""

WAITING = """
import time
from pathlib import Path

def test_a(deployment): pass

def test_b(deployment):
    time.sleep(1)  # by then the controller has heard of test_a
    Path("waiting").touch()
    time.sleep(60)
"""


def wait_for(condition):
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.parametrize("args", [(), ("-n", "1")], ids=["plain", "controller"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signal_takes_down_and_reports(project, name, args):
    project.suite(WAITING)
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", "--junitxml=out.xml", *args],
        cwd=project.pytester.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            wait_for((project.pytester.path / "waiting").exists)
            process.send_signal(getattr(signal, name))
            out, _ = process.communicate(timeout=WAIT_S)
        finally:
            process.kill()

    assert process.returncode == 2
    assert project.downs() == ["local_1p1d"]
    assert "1 passed" in out
    assert (project.pytester.path / "out.xml").exists()


def test_second_interrupt_does_not_wait_and_still_reports(project, monkeypatch):
    monkeypatch.setenv("FAKE_SLOW", "1")
    project.suite(WAITING + "\ndef test_c(deployment): pass\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest"],
        cwd=project.pytester.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for((project.pytester.path / "waiting").exists)
    process.send_signal(signal.SIGINT)
    wait_for(project.downs)

    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)

    assert process.returncode == 2
    assert "1 passed" in out
    assert "interrupted again" in out
    assert "Traceback" not in out


CRASH = """
import os
import pytest

@pytest.mark.parametrize("n", range(6))
def test_a(deployment, n):
    if n == 2:
        os.kill(os.getpid(), 9)
"""


def test_crashed_worker_fails_its_test_once_and_blocks_the_rest(project):
    project.suite(CRASH)

    result = project.run("-n", "2", "--topology", "local_1p1d")

    assert project.ups() == ["local_1p1d"]
    result.stdout.fnmatch_lines(["*crashed while running*test_a*local_1p1d-2*"])
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] == 2
    assert outcomes["failed"] == 1
    assert outcomes.get("blocked", 0) + outcomes.get("errors", 0) == 3


def test_crash_in_one_topology_leaves_the_other_alone(project):
    project.suite(
        CRASH.replace("if n == 2", "if n == 2 and deployment.name == 'local_1p1d'")
    )

    result = project.run("-n", "2", "--topology", "local_1p1d,local_2p1d")

    assert sorted(project.ups()) == ["local_1p1d", "local_2p1d"]
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] == 8
    assert outcomes["failed"] == 1
