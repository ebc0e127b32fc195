"""Tests that measure have their machine for themselves; others share it."""

from __future__ import annotations

import pytest

SUITE = """
import os, time
from pathlib import Path

import pytest

{mark}
@pytest.mark.parametrize("n", range(3))
def test_a(deployment, n):
    begun = time.monotonic()
    time.sleep(0.5)
    with (Path(__file__).parent / "times.txt").open("a") as file:
        file.write(f"{{begun}} {{time.monotonic()}} {{deployment.name}}\\n")
"""
TWO = ("--topology", "local_1p1d,local_2p1d", "-n", "2")


def overlaps(project):
    """Return how many pairs of tests of different topologies ran at one time."""
    lines = (project.pytester.path / "times.txt").read_text().splitlines()
    spans = [line.split() for line in lines]
    assert len(spans) == 6
    return sum(
        float(a[0]) < float(b[1]) and float(b[0]) < float(a[1])
        for a in spans
        for b in spans
        if a[2] < b[2]
    )


@pytest.fixture(autouse=True)
def own_locks(monkeypatch, tmp_path):
    """Keep other runs on this host out of the picture."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.mark.parametrize("mark", ["measure", "performance"])
def test_measuring_tests_run_one_at_a_time(project, mark):
    project.suite(SUITE.format(mark=f"@pytest.mark.{mark}"))

    project.run(*TWO).assert_outcomes(passed=6)

    assert overlaps(project) == 0


def test_other_tests_run_beside_each_other(project):
    project.suite(SUITE.format(mark=""))

    project.run(*TWO).assert_outcomes(passed=6)

    assert overlaps(project) > 0


def test_sharing_can_be_asked_for(project):
    project.suite(SUITE.format(mark="@pytest.mark.measure"))

    project.run(*TWO, "--pd-share-nodes").assert_outcomes(passed=6)

    assert overlaps(project) > 0


HELD = """
import subprocess, sys

from pytest_pd.provision import locks

locks.TELL_S = 0.1
HOLD = '''
import time
from pytest_pd.provision.locks import host_lock
with host_lock("node-localhost"):
    print("held", flush=True)
    time.sleep(4)
'''
other = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE)
assert other.stdout.readline() == b"held\\n"

def test_a(deployment): other.communicate()
"""


def test_one_who_waits_says_whom_for(project):
    project.suite(HELD)

    result = project.run()

    result.assert_outcomes(passed=1)
    result.stderr.fnmatch_lines(["pd: waiting for pid *, which uses localhost *"])
