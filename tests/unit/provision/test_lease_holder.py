"""The lease is renewed by a process of its own, and given back on every way out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from pytest_pd.errors import InfrastructureLost, ProvisionError
from pytest_pd.provision.lease import LeaseHolder, held
from tests.kit import wait_until


def text(path):
    return path.read_text().strip()


def test_the_counter_grows_while_it_is_held(tmp_path):
    with held(tmp_path / "lease", 0.5):
        before = text(tmp_path / "lease")
        wait_until(lambda: text(tmp_path / "lease") != before, "a renewal")


def test_it_is_given_back_when_the_block_ends(tmp_path):
    with held(tmp_path / "lease", 5.0):
        pass

    assert text(tmp_path / "lease") == "bye"


def test_it_is_given_back_when_the_block_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), held(tmp_path / "lease", 5.0):
        raise ZeroDivisionError

    assert text(tmp_path / "lease") == "bye"


def test_only_the_owner_may_read_it(tmp_path):
    with held(tmp_path / "lease", 5.0):
        assert (tmp_path / "lease").stat().st_mode & 0o777 == 0o600


def test_an_old_word_in_the_file_does_not_end_the_new_lease(tmp_path):
    (tmp_path / "lease").write_text("bye\n")

    with held(tmp_path / "lease", 5.0):
        assert text(tmp_path / "lease") != "bye"


def test_a_folder_that_may_not_be_written_is_one_clear_error(tmp_path):
    with pytest.raises(ProvisionError, match="cannot be written") as caught:
        LeaseHolder(tmp_path / "none" / "lease", 5.0)

    assert "--run-dir" in caught.value.hint


def release_in_a_fork(holder):
    pid = os.fork()
    if pid == 0:
        holder.release()
        os._exit(0)
    os.waitpid(pid, 0)


def test_a_fork_does_not_give_it_back(tmp_path):
    seldom_s = 300.0
    with held(tmp_path / "lease", seldom_s) as holder:
        wait_until(lambda: int(text(tmp_path / "lease")) > 0, "the keeper's start")
        release_in_a_fork(holder)

        assert text(tmp_path / "lease") != "bye"


def test_the_keeper_ends_by_itself_when_the_pipe_does(tmp_path):
    with held(tmp_path / "lease", 5.0) as holder:
        wait_until(lambda: int(text(tmp_path / "lease")) > 0, "the keeper's start")

    assert holder.keeper_code == 0


def test_a_fork_does_not_end_the_keeper(tmp_path):
    with held(tmp_path / "lease", 0.5) as holder:
        release_in_a_fork(holder)

        holder.check()
        before = text(tmp_path / "lease")
        wait_until(lambda: text(tmp_path / "lease") != before, "a renewal")


def test_a_killed_keeper_is_noticed(tmp_path):
    with held(tmp_path / "lease", 5.0) as holder:
        os.kill(holder.identity.pid, signal.SIGKILL)

        wait_until(lambda: is_lost(holder), "the loss")


def is_lost(holder):
    try:
        holder.check()
    except InfrastructureLost:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTSTP])
def test_what_a_terminal_sends_does_not_reach_the_keeper(tmp_path, number):
    with held(tmp_path / "lease", 0.5) as holder:
        wait_until(lambda: int(text(tmp_path / "lease")) > 1, "the keeper's start")
        os.kill(holder.identity.pid, number)
        before = text(tmp_path / "lease")

        wait_until(lambda: text(tmp_path / "lease") != before, "a renewal")


HOLDER = """
import os, sys, time
from pathlib import Path
from pytest_pd.provision.lease import LeaseHolder
holder = LeaseHolder(Path(sys.argv[1]), 0.5)
if sys.argv[2] == "fork" and os.fork() == 0:
    time.sleep(600)
if sys.argv[2] == "keep":
    holder.keep(float(sys.argv[3]))
print(holder.identity.pid, flush=True)
if sys.argv[2] == "keep":
    holder.release()
    raise SystemExit
time.sleep(600)
"""


def holder_process(lease, *words):
    argv = [sys.executable, "-c", HOLDER, str(lease), *words]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True)
    assert child.stdout is not None
    return child, int(child.stdout.readline())


@pytest.mark.parametrize("mode", ["plain", "fork"])
def test_a_killed_holder_gives_it_back_even_if_a_fork_of_it_lives(tmp_path, mode):
    child, _ = holder_process(tmp_path / "lease", mode)
    child.kill()
    try:
        wait_until(lambda: text(tmp_path / "lease") == "bye", "the end of the lease")
    finally:
        os.killpg(child.pid, signal.SIGKILL) if mode == "fork" else None
        child.communicate()


def test_a_kept_lease_outlives_its_holder_until_the_deadline(tmp_path):
    child, keeper = holder_process(tmp_path / "lease", "keep", "2")
    child.communicate()
    ended_s = time.monotonic()
    before = text(tmp_path / "lease")
    wait_until(lambda: text(tmp_path / "lease") != before, "a renewal")

    assert text(tmp_path / "lease") != "bye"
    wait_until(lambda: text(tmp_path / "lease") == "bye", "the deadline")
    assert time.monotonic() - ended_s > 0.5
    assert keeper != child.pid


def test_a_kept_lease_ends_early_on_term(tmp_path):
    child, keeper = holder_process(tmp_path / "lease", "keep", "600")
    child.communicate()

    os.kill(keeper, signal.SIGTERM)

    wait_until(lambda: text(tmp_path / "lease") == "bye", "the end of the lease")
