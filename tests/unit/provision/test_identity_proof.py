"""A pid proves nothing: start time, boot and machine do."""

from __future__ import annotations

import json
import os
import shutil
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
    [
        {"start_time": 1},
        {"boot_id": "other"},
        {"host": "other"},
        {"pid_ns": "pid:[1]"},
        {"start_time": 0},
    ],
    ids=str,
)
def test_the_same_pid_of_another_life_is_not_it(child, change):
    assert not replace(Identity.of(child.pid), **change).is_alive


def test_an_identity_survives_its_record(child):
    identity = Identity.of(child.pid)

    assert Identity.read(identity.record()) == identity


def test_the_same_pid_in_another_container_is_elsewhere(child):
    assert not Identity.of(child.pid).is_elsewhere
    assert replace(Identity.of(child.pid), pid_ns="pid:[1]").is_elsewhere


def test_a_record_of_an_earlier_version_is_read(child):
    record = Identity.of(child.pid).record()
    del record["pid_ns"]

    assert Identity.read(record).is_alive


def test_another_pid_namespace_of_this_host_is_told_apart():
    code = (
        "import json, os; from pytest_pd.provision.identity import Identity; "
        "print(json.dumps(Identity.of(os.getpid()).record()))"
    )
    unshare = shutil.which("unshare") or "false"
    words = [unshare, "--pid", "--fork", "--mount-proc", sys.executable, "-c", code]
    said = subprocess.run(words, capture_output=True)
    if said.returncode:
        pytest.skip("no PID namespace can be made here: run as root, with unshare")

    there = Identity.read(json.loads(said.stdout))

    assert there.start_time > 0
    assert replace(there, pid_ns="").is_here
    assert there.is_elsewhere


def test_an_empty_record_proves_nothing():
    assert not Identity.read({}).is_alive


def test_the_mark_finds_a_process_by_any_beginning(child):
    assert child.pid in list(marked_with("unit1234/"))
    assert child.pid in list(marked_with("unit1234/toy/one"))


def test_another_mark_does_not_find_it(child):
    assert child.pid not in list(marked_with("unit1234/tox"))
    assert child.pid not in list(marked_with("unit1234/toy/on"))
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
