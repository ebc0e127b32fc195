"""However the harness ends or pauses, its services follow, or do not notice."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from pytest_pd.errors import InfrastructureLost, ProcessDied
from pytest_pd.provision.deploy import deploy
from pytest_pd.provision.identity import Identity
from pytest_pd.provision.local import LocalBackend
from pytest_pd.provision.reap import wait_lease_over
from pytest_pd.provision.rundir import RunDir, make_run_id
from pytest_pd.spec.cluster import ClusterSpec
from tests.e2e.lease_harness import harness, kill_after, left_of
from tests.kit import toy_topology, wait_until

COUNT = int(os.environ.get("PD_KILL_COUNT", "4"))
LONGEST_S = 2.5


@pytest.mark.parametrize("number", range(COUNT))
def test_a_harness_killed_at_any_moment_leaves_nothing(tmp_path, number):
    """Bring-up, run and teardown of a toy topology take about two seconds."""
    delay_s = random.uniform(0.0, LONGEST_S)

    kill_after(tmp_path / "toy", make_run_id(), delay_s, hold_s=0.5)

    assert left_of(tmp_path / "toy", "none") == []


def test_a_stopped_harness_kills_nothing(tmp_path):
    run, run_id = RunDir(tmp_path / "toy"), make_run_id()
    with harness(run.path, run_id, ttl_s=1.0) as child:
        assert child.stdout.readline() == b"up\n"
        before = left_of(run.path, run_id)
        child.send_signal(signal.SIGSTOP)
        time.sleep(4.0)
        after = left_of(run.path, run_id)
        child.send_signal(signal.SIGCONT)

    assert before
    assert after == before
    wait_until(lambda: not left_of(run.path, run_id), "the end of all")


def test_the_folder_may_be_used_again_once_the_old_lease_is_over(tmp_path):
    run, run_id = RunDir(tmp_path / "toy"), make_run_id()
    with harness(run.path, run_id) as child:
        assert child.stdout.readline() == b"up\n"
        child.kill()
        child.wait()
        wait_lease_over(run.path)

        assert left_of(run.path, run_id) == []


@pytest.fixture
def deployment(tmp_path):
    cluster = ClusterSpec(name="local", lease_ttl_s=2.0)
    context = RunDir(tmp_path / "toy").context(make_run_id(), 2.0)
    with deploy(toy_topology(), LocalBackend(), cluster, context) as made:
        yield made


def test_a_killed_launcher_takes_its_service_along(deployment):
    process = deployment.processes["decode-0"]
    service = Identity.read(process.identity())

    os.kill(process.launcher.pid, signal.SIGKILL)

    wait_until(lambda: not service.is_alive, "the end of the service")
    wait_until(lambda: process.exit_code() is not None, "the exit code")
    with pytest.raises(ProcessDied, match="decode-0"):
        deployment.check_alive()


def test_a_killed_keeper_is_noticed_and_ends_everything(deployment):
    os.kill(deployment.lease.identity.pid, signal.SIGKILL)

    def is_lost():
        try:
            deployment.check_alive()
        except (InfrastructureLost, ProcessDied):
            return True
        return False

    wait_until(is_lost, "the loss of the lease")
    codes = [process.exit_code for process in deployment.processes.values()]
    wait_until(lambda: all(code() is not None for code in codes), "the end of all")
