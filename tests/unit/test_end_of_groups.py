"""The end of a process group that somebody else's program leads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from pytest_pd.group import end_group

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: time.sleep(60))
print(flush=True)
while True:
    time.sleep(60)
"""


@pytest.fixture
def stubborn():
    """A leader that takes a minute over SIGTERM."""
    with subprocess.Popen(
        [sys.executable, "-c", STUBBORN],
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        process.stdout.readline()
        yield process
        process.kill()


def test_what_does_not_heed_sigterm_is_killed(stubborn):
    end_group(stubborn, grace_s=0.1)

    assert stubborn.wait(10) == -signal.SIGKILL


def test_a_ctrl_c_in_the_wait_leaves_nothing_alive(stubborn):
    def press(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, press)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            end_group(stubborn, grace_s=3)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert stubborn.wait(10) == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.killpg(stubborn.pid, 0)
