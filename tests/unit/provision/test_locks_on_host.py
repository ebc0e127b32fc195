"""Locks hold between processes, and a killed holder frees them."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from pytest_pd.errors import ProvisionError
from pytest_pd.provision import locks
from pytest_pd.provision.locks import file_name, host_lock, node_locks

HOLD = """
import sys, time
from pytest_pd.provision.locks import host_lock
with host_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def own_user_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.fixture
def holder():
    words = [sys.executable, "-c", HOLD, "node-n1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        yield child
        child.kill()


def test_a_held_lock_names_its_holder(holder):
    refused = pytest.raises(ProvisionError, match=f"pid {holder.pid}")
    with refused, host_lock("node-n1", timeout_s=0.2):
        pass


def test_one_who_waits_long_tells_once_whom_for(holder):
    clock, told = iter(range(100)), []
    refused = pytest.raises(ProvisionError)

    with (
        refused,
        host_lock(
            "node-n1",
            timeout_s=40,
            tell=told.append,
            clock=lambda: float(next(clock)),
            sleep=lambda _: None,
        ),
    ):
        pass

    assert told == [str(holder.pid)]


def test_a_node_that_is_waited_for_is_named(holder, monkeypatch):
    monkeypatch.setattr(locks, "TELL_S", 0.0)
    told = []
    refused = pytest.raises(ProvisionError)

    with refused, node_locks(["n1"], alone=True, timeout_s=0.2, tell=told.append):
        pass

    (line,) = told
    assert line.startswith(f"waiting for pid {holder.pid}, which uses n1 ")


def test_other_names_are_free(holder):
    with host_lock("node-n2", timeout_s=0.2):
        pass


def test_a_killed_holder_frees_it(holder):
    holder.kill()
    holder.wait()

    with host_lock("node-n1", timeout_s=30):
        pass


def test_one_who_waits_gets_it_next():
    got, inside = threading.Event(), host_lock("x")

    def wait():
        with host_lock("x"):
            got.set()

    with inside:
        thread = threading.Thread(target=wait)
        thread.start()
        assert not got.wait(0.2)
    assert got.wait(60)
    thread.join()


def use(*nodes, alone):
    return node_locks(nodes, alone=alone, timeout_s=0.2)


@pytest.mark.parametrize("alone", [True, False])
def test_nobody_is_beside_one_who_measures(holder, alone):
    with pytest.raises(ProvisionError), use("n0", "n1", alone=alone):
        pass


def test_those_who_do_not_measure_are_beside_each_other():
    with use("n0", alone=False), use("n0", alone=False):
        pass


def test_one_who_measures_waits_for_those_who_do_not():
    refused = pytest.raises(ProvisionError)
    with use("n0", alone=False), refused, use("n0", alone=True):
        pass


def test_other_nodes_are_free(holder):
    with use("n0", "n2", alone=True):
        pass


def test_a_refused_lock_holds_none_of_its_nodes(holder):
    with pytest.raises(ProvisionError), use("n0", "n1", alone=True):
        pass

    with use("n0", alone=True):
        pass


def test_a_node_named_twice_is_locked_once():
    with use("n0", "n0", alone=True):
        pass


@pytest.mark.parametrize("name", ["a/b", "a b", "ü", "x" * 300, "../x"])
def test_any_name_is_a_safe_file_name(name):
    made = file_name(name)

    assert len(made) < 120
    assert "/" not in made
    assert made != file_name(name + "!")
