"""What a service on an SSH host is that lives on although it was killed."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from pytest_pd.errors import ProvisionError
from pytest_pd.provision import ssh_allocation
from pytest_pd.provision.rundir import RunDir
from pytest_pd.provision.ssh_allocation import SshAllocation
from pytest_pd.provision.ssh_host import Answer
from pytest_pd.provision.ssh_process import SshProcess
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.site_ssh import SshSite
from tests.kit import plan_of

RECORD = {"pid": 12, "launcher_pid": 11, "launcher_start_time": 99}


class Host:
    """A host whose launcher never ends."""

    name, remote, gone = "h0", "/r", ()
    site = SimpleNamespace(python="python3")
    silent_s = 0.0
    answer = Answer(0, "", "")

    def __init__(self):
        self.ran, self.removed = [], []

    def run(self, command, stdin=""):
        self.ran.append(command)
        return self.answer

    def wait_for(self, done, _):
        return done()

    def lost_s(self):
        return self.silent_s

    def close(self, *, remove):
        self.removed.append(remove)


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def allocation(tmp_path, host):
    run = RunDir(tmp_path)
    run.create()
    run.started("one").write_text(json.dumps(RECORD))
    site = SshSite.model_validate({"hosts": [{"host": "h0"}]})
    cluster = ClusterSpec(name="c", backend="ssh", ssh=site)
    made = SshAllocation(cluster, plan_of([]), run.context("r1", 5.0))
    made._hosts = {"node0": host}
    made._processes = [
        SshProcess("one", tmp_path / "one.log", run, host, mark="r1/toy/one")
    ]
    return made


def test_what_cannot_be_killed_is_told_and_keeps_its_folder(allocation, host):
    with pytest.raises(
        ProvisionError, match=r"'one' \(pid 12, launcher 11\) on h0 cannot"
    ):
        allocation.close()

    assert host.removed == [None]


def test_what_a_killed_launcher_left_is_told_and_keeps_its_folder(allocation, host):
    host.gone, host.answer = ("one",), Answer(1, "21 22\n", "")

    with pytest.raises(ProvisionError, match=r"2 process\(es\) .* on h0 .* 21, 22"):
        allocation.close()

    assert host.removed == [None]


def test_what_nobody_can_ask_about_is_left_to_its_lease(allocation, host):
    host.silent_s = 30.0

    allocation.close()

    assert host.removed == [
        ssh_allocation.remote_dir(allocation._site, allocation._context)
    ]
