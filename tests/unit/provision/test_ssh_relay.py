"""The helper that carries a lease to SSH hosts, and when it has nobody to work for."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from pytest_pd.errors import ProvisionError
from pytest_pd.provision import ssh_allocation, ssh_relay
from pytest_pd.provision.ssh_allocation import SshAllocation
from pytest_pd.provision.ssh_relay import Relay
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.site_ssh import SshSite
from tests.kit import plan_of

SITE = SshSite.model_validate({"hosts": [{"host": "h0"}], "run_dir": "/tmp"})


class Channel:
    """Takes every word."""

    def __init__(self):
        self.words = []

    def sendall(self, text):
        self.words.append(text.decode().strip())

    def settimeout(self, _): ...
    def exec_command(self, _): ...
    def shutdown_write(self): ...
    def recv_exit_status(self): ...


@pytest.fixture
def lease(tmp_path):
    path = tmp_path / "lease"
    path.write_text("1")
    return path


@pytest.fixture
def channel(monkeypatch):
    made = Channel()
    transport = SimpleNamespace(open_session=lambda: made)
    connection = SimpleNamespace(transport=transport, close=lambda: None)
    monkeypatch.setattr(ssh_relay, "open_connection", lambda *_: connection)
    return made


def test_a_lease_that_nobody_renews_is_not_relayed_for_ever(lease, channel):
    relay = Relay(SITE, 0, "/r", lease, 0.5)

    relay.run()

    assert channel.words == ["1"]
    assert relay.sent


def test_the_last_word_is_sent(lease, channel):
    lease.write_text("bye")

    Relay(SITE, 0, "/r", lease, 60.0).run()

    assert channel.words == ["bye"]


def test_nobody_waits_for_a_host_that_never_answered(lease, monkeypatch):
    def refuse(*_):
        raise ProvisionError("no route")

    monkeypatch.setattr(ssh_relay, "open_connection", refuse)
    monkeypatch.setattr(ssh_relay, "RETRY_S", 0.1)
    relay = Relay(SITE, 0, "/r", lease, 0.3)

    relay.run()

    assert relay.ready.is_set()
    assert not relay.sent


def test_a_helper_without_a_host_that_answers_says_not_that_it_is_ready(tmp_path):
    site = {"hosts": [{"host": "127.0.0.1", "port": 1}], "run_dir": "/tmp"}
    request = {"site": site, "hosts": [[0, "/r"]], "ttl_s": 0.5}
    request["lease"] = str(tmp_path / "none")

    done = subprocess.run(
        [sys.executable, "-m", "pytest_pd.provision.ssh_relay"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "")


def test_an_interrupt_while_the_helper_starts_leaves_none(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    made = []
    popen = subprocess.Popen

    def start(*_, **given):
        made.append(popen(["sleep", "600"], **given))
        return made[-1]

    monkeypatch.setattr(ssh_allocation.subprocess, "Popen", start)
    monkeypatch.setattr(ssh_allocation.select, "select", interrupt)
    monkeypatch.setattr(ssh_allocation.RemoteHost, "prepare", lambda _: None)
    cluster = ClusterSpec(name="c", backend="ssh", ssh=SITE)
    context = ssh_allocation.RunDir(tmp_path).context("r1", 5.0)
    allocation = SshAllocation(cluster, plan_of([]), context)

    with pytest.raises(KeyboardInterrupt):
        allocation.open()
    allocation.close()

    assert [each.poll() for each in made] == [-9]
