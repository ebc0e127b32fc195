"""A pid proves nothing: start time, boot and machine do."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from pytest_pd.provision.identity import Identity, marked_with
from pytest_pd.provision.launcher import MARK
from tests.kit import wait_until


@pytest.fixture
def child():
    env = {**os.environ, MARK: "unit1234/toy/one"}
    code = "import time; time.sleep(600)"
    with subprocess.Popen([sys.executable, "-S", "-c", code], env=env) as made:
        yield made
        made.kill()


def test_a_process_that_runs_is_alive(child):
    assert Identity.of(child.pid).is_alive


def test_a_process_that_ended_is_not(child):
    identity = Identity.of(child.pid)
    child.kill()

    wait_until(lambda: not identity.is_alive, "the end")


@pytest.mark.parametrize(
    "change",
    [{"start_time": 1}, {"boot_id": "other"}, {"host": "other"}, {"start_time": 0}],
    ids=str,
)
def test_the_same_pid_of_another_life_is_not_it(child, change):
    assert not replace(Identity.of(child.pid), **change).is_alive


def test_an_identity_survives_its_record(child):
    identity = Identity.of(child.pid)

    assert Identity.read(identity.record()) == identity


def test_an_empty_record_proves_nothing():
    assert not Identity.read({}).is_alive


def test_the_mark_finds_a_process_by_any_beginning(child):
    assert child.pid in list(marked_with("unit1234/"))
    assert child.pid in list(marked_with("unit1234/toy/one"))


def test_another_mark_does_not_find_it(child):
    assert child.pid not in list(marked_with("unit1234/tox"))
    assert child.pid not in list(marked_with("unit12345"))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_processes_of_other_users_are_never_found():
    code = f"import os; os.setuid(12345); os.environ['{MARK}'] = 'x'; import time;"
    words = [sys.executable, "-S", "-c", code + "print(1, flush=True); time.sleep(600)"]
    env = {**os.environ, MARK: "theirs12/toy/one"}
    with subprocess.Popen(words, env=env, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert list(marked_with("theirs12/")) == []
        child.kill()
