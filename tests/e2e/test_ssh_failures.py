"""What goes wrong with SSH hosts, each tried on real sshd: one clear message each."""

import os
import shutil
import signal
import subprocess
from contextlib import contextmanager
from functools import partial

import pytest

from pytest_pd.errors import InfrastructureLost, ProvisionError
from pytest_pd.plan.model import SiteFacts
from pytest_pd.probe.logs import read_text
from pytest_pd.provision import ssh_host
from pytest_pd.provision.base import Inspector, Janitor
from pytest_pd.provision.identity import marked_with
from pytest_pd.provision.lease import held
from pytest_pd.provision.rundir import RunDir, make_run_id, read_record
from pytest_pd.provision.ssh import SshBackend
from pytest_pd.spec.cluster import ClusterSpec
from tests import services_sshd
from tests.kit import plan_of, python, wait_until
from tests.services import require
from tests.services_sshd import sshd_hosts

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
PARENT = (
    "import subprocess, sys;"
    f"subprocess.run([sys.executable, '-S', '-E', '-c', {SLEEPER!r}])"
)


@pytest.fixture
def hosts(tmp_path):
    if why := services_sshd.missing():
        require("sshd", why)
    with sshd_hosts(tmp_path / "sshd", 2) as made:
        yield made


def cluster(hosts, root, **site):
    ttl_s = site.pop("ttl_s", 10.0)
    made = hosts.site(run_dir=str(root / "remote"), **site)
    return ClusterSpec(name="e2e", backend="ssh", lease_ttl_s=ttl_s, ssh=made)


@contextmanager
def allocated(place, root, run_id=None, nodes=2):
    run_id = run_id or make_run_id()
    run = RunDir(root / run_id / "toy")
    run.create()
    plan = plan_of(
        [python(f"s{n}", SLEEPER, node=f"node{n}") for n in range(nodes)], nodes=nodes
    )
    with (
        held(run.lease, place.lease_ttl_s),
        SshBackend().allocate(
            place, plan, run.context(run_id, place.lease_ttl_s)
        ) as allocation,
    ):
        yield allocation


def started(allocation, node="node0", code=SLEEPER):
    process = allocation.start(python(f"on-{node}", code, node=node))
    wait_until(lambda: "up" in read_text(process.log), "the start")
    return process


def refused(place, root):
    with pytest.raises(ProvisionError) as caught, allocated(place, root):
        pass
    return str(caught.value)


def test_a_changed_host_key_is_refused(hosts, tmp_path):
    place = cluster(hosts, tmp_path)
    lines = hosts.known_hosts.read_text().splitlines()
    first, second = (line.split(" ", 1) for line in lines)
    hosts.known_hosts.write_text(f"{first[0]} {second[1]}\n{second[0]} {second[1]}\n")

    assert "shows another host key than the known one" in refused(place, tmp_path)


def test_an_unknown_host_key_is_refused(hosts, tmp_path):
    hosts.known_hosts.write_text("")

    assert "no known_hosts file holds" in refused(cluster(hosts, tmp_path), tmp_path)


def test_a_key_that_the_host_does_not_take_is_told(hosts, tmp_path, monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    other = tmp_path / "other"
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)]
    subprocess.run(words, check=True)
    shutil.copyfile(other, hosts.client_key)

    assert "refuses our keys" in refused(cluster(hosts, tmp_path), tmp_path)


def test_a_dead_host_is_named(hosts, tmp_path):
    place = cluster(hosts, tmp_path)
    hosts.kill(1)

    assert f"{hosts.addresses[1]}:2222 cannot be reached" in refused(place, tmp_path)


def test_an_interpreter_that_is_not_there_is_told(hosts, tmp_path):
    place = cluster(hosts, tmp_path, python="no-such-python")
    with allocated(place, tmp_path) as allocation, pytest.raises(ProvisionError) as got:
        allocation.busy_ports(plan_of([python("a", "")]))

    assert "no-such-python" in str(got.value)


def test_a_broken_connection_is_not_a_dead_service(hosts, tmp_path, monkeypatch):
    monkeypatch.setattr(ssh_host, "SILENT_S", 2.0)
    place = cluster(hosts, tmp_path, ttl_s=600.0)
    with allocated(place, tmp_path) as allocation:
        process = started(allocation)
        other = started(allocation, "node1")
        hosts.kill(0)
        caught = []

        def told():
            try:
                process.exit_code()
            except InfrastructureLost as error:
                caught.append(error)
            return caught

        wait_until(told, "the news")
        assert other.exit_code() is None
        hosts.start_daemon(0, hosts.addresses[:1])
        wait_until(lambda: not allocation.silent(), "the host again")
        assert process.exit_code() is None

    assert "Nothing was heard from" in str(caught[0])
    assert list(marked_with(allocation.mark)) == []


def test_a_service_that_is_started_anew_is_known_and_dies_again(
    hosts, tmp_path, monkeypatch
):
    monkeypatch.setattr(ssh_host, "SILENT_S", 2.0)
    with allocated(cluster(hosts, tmp_path, ttl_s=600.0), tmp_path) as allocation:
        pids = set()
        for _ in range(2):
            process = allocation.start(python("one", SLEEPER))
            wait_until(lambda p=process: p.identity()["pid"], "its record")
            assert process.exit_code() is None
            pids.add(process.identity()["pid"])
            process.kill(9)
            wait_until(lambda p=process: p.exit_code() == -9, "its death")
            process.stop(grace_s=0.0)
        last = allocation.start(python("one", SLEEPER))
        wait_until(lambda: last.identity()["pid"], "its record")
        hosts.kill(0)
        wait_until(allocation.silent, "silence")
        hosts.start_daemon(0, hosts.addresses[:1])
        wait_until(lambda: not allocation.silent(), "the host again")

        assert len({*pids, last.identity()["pid"]}) == 3
        assert last.exit_code() is None


def test_a_host_that_stays_away_ends_its_services_by_their_lease(hosts, tmp_path):
    place, run_id = cluster(hosts, tmp_path, ttl_s=3.0), make_run_id()
    seen = []
    with pytest.raises(InfrastructureLost):
        lose_a_host(hosts, place, tmp_path, run_id, seen)

    assert seen == ["up", "ended by its lease"]


def lose_a_host(hosts, place, root, run_id, seen):
    with allocated(place, root, run_id) as allocation:
        started(allocation)
        seen.append("up")
        hosts.kill(0)
        wait_until(lambda: not list(marked_with(f"{run_id}/")), "the end by the lease")
        seen.append("ended by its lease")


def test_jumps_check_both_keys(hosts, tmp_path):
    (hosts.root / "config").write_text(
        f"Host inner\n HostName {hosts.addresses[1]}\n Port {hosts.port}\n"
        f" ProxyJump {hosts.addresses[0]}:{hosts.port}\n"
    )
    place = cluster(hosts, tmp_path)
    inner = place.ssh.hosts[1].model_copy(update={"host": "inner", "port": None})
    site = place.ssh.model_copy(update={"hosts": (inner,)})
    place = place.model_copy(update={"ssh": site, "nodes": 1})
    with allocated(place, tmp_path, nodes=1) as allocation:
        assert started(allocation).exit_code() is None

    first = hosts.known_hosts.read_text().splitlines()[1]
    hosts.known_hosts.write_text(first + "\n")
    with pytest.raises(ProvisionError), allocated(place, tmp_path, nodes=1):
        pass


def test_what_was_kept_is_ended_from_another_process(hosts, tmp_path):
    place, run_id = cluster(hosts, tmp_path, ttl_s=600.0), make_run_id()
    run = RunDir(tmp_path / run_id / "toy")
    with allocated(place, tmp_path, run_id) as allocation:
        started(allocation)
        started(allocation, "node1")
        allocation.keep()
        backend = SshBackend()
        assert isinstance(backend, Janitor)
        assert list(marked_with(f"{run_id}/"))

        backend.clean(place, run.context(run_id, 600.0))

        assert list(marked_with(f"{run_id}/")) == []
        assert not (tmp_path / "remote" / f"pytest-pd-{run_id}").exists()


@pytest.mark.parametrize("by", ["close", "clean"])
def test_what_a_killed_launcher_left_is_ended(hosts, tmp_path, by):
    place, run_id = cluster(hosts, tmp_path, ttl_s=600.0), make_run_id()
    run = RunDir(tmp_path / run_id / "toy")
    with allocated(place, tmp_path, run_id) as allocation:
        process = started(allocation, code=PARENT)
        record = partial(read_record, run.started(process.name))
        wait_until(record, "its record")
        os.kill(record()["launcher_pid"], signal.SIGKILL)
        wait_until(lambda: process.exit_code() == -9, "its death")
        assert list(marked_with(f"{run_id}/"))
        if by == "clean":
            allocation.keep()
            SshBackend().clean(place, run.context(run_id, 600.0))

    assert list(marked_with(f"{run_id}/")) == []
    assert not (tmp_path / "remote" / f"pytest-pd-{run_id}").exists()


def test_preflight_looks_at_every_host(hosts, tmp_path):
    plan = plan_of([python(f"s{n}", "", node=f"node{n}") for n in range(2)], nodes=2)
    backend = SshBackend()
    assert isinstance(backend, Inspector)

    found = backend.preflight(cluster(hosts, tmp_path), plan, tmp_path / "look")

    assert {"node0", "node1"} <= {f.what for f in found if f.ok}
    assert list((tmp_path / "look").iterdir()) == []


def test_nothing_of_a_run_is_left_on_the_hosts(hosts, tmp_path):
    place = cluster(hosts, tmp_path)
    with allocated(place, tmp_path) as allocation:
        started(allocation)
        assert list((tmp_path / "remote").rglob("launcher.py"))

    assert list((tmp_path / "remote").iterdir()) == []


def test_a_plan_with_images_is_refused(tmp_path):
    plan = plan_of([python("one", "", image="some/image")])

    with pytest.raises(ProvisionError, match="starts programs"):
        SshBackend().check(ClusterSpec(name="x"), [plan])


def test_site_facts_have_the_python_of_the_package(hosts, tmp_path):
    with allocated(
        cluster(hosts, tmp_path, package_python="/opt/py"), tmp_path
    ) as allocation:
        facts = SiteFacts(python=allocation.python, run_dir=allocation.run_dir)

    assert facts.python == "/opt/py"
    assert facts.run_dir.startswith(str(tmp_path / "remote"))


def test_forty_hosts_are_opened_side_by_side(tmp_path):
    if why := services_sshd.missing():
        require("sshd", why)
    with sshd_hosts(tmp_path / "sshd", 40, per_daemon=14) as many:
        place = cluster(many, tmp_path, ttl_s=60.0)
        with allocated(place, tmp_path, nodes=40) as allocation:
            addresses = allocation.addresses(plan_of([]))

    assert len(set(addresses.values())) == 40
