"""A tied program ends with whoever started it, and hands its exit code on."""

import subprocess
import sys

import psutil
import pytest

from pytest_pd import tied
from tests.kit import wait_until

SLEEPER = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"


@pytest.fixture
def start():
    started = []

    def run(code):
        words = [sys.executable, "-S", "-E", tied.__file__, sys.executable, "-c", code]
        popen = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(popen)
        return popen

    yield run
    for popen in started:
        popen.stdin.close()
        popen.wait()
        popen.stdout.close()


def test_it_ends_when_its_standard_input_ends(start):
    popen = start(SLEEPER)
    pid = int(popen.stdout.readline())

    popen.stdin.close()

    wait_until(lambda: not psutil.pid_exists(pid), "the end")


def test_its_exit_code_is_handed_on(start):
    assert start("raise SystemExit(7)").wait() == 7
