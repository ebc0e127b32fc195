"""Refits on SSH hosts: real sshd, ranks of one refit on two of them."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import yaml

from pytest_pd.cli import main
from pytest_pd.errors import EngineMissing, InfrastructureLost, InvalidRun, SpecError
from pytest_pd.provision.ssh_command import remote_command
from pytest_pd.refit.files import pick, read_refit
from pytest_pd.refit.local import PYTHON_VARIABLE, worker_python
from pytest_pd.refit.run import Settings, judged, twin_jobs
from pytest_pd.refit.ssh import run_ssh
from tests import services_sshd
from tests.kit import wait_until
from tests.services import require
from tests.services_sshd import sshd_hosts

KIMI = read_refit("kimi_k2")
QUICK = Settings(warmup=0, iterations=2)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    if why := services_sshd.missing():
        require("sshd", why)
    with sshd_hosts(tmp_path_factory.mktemp("sshd"), 2) as made:
        yield made


@pytest.fixture(autouse=True)
def python(monkeypatch):
    try:
        found = worker_python()
    except EngineMissing as error:
        require("torch", f"{error.fact} {error.hint}")
    monkeypatch.setenv(PYTHON_VARIABLE, found)


def jobs_of(number, folder):
    return twin_jobs(KIMI, pick(KIMI, [number]), "tiny", folder, QUICK)


def test_a_refit_over_two_hosts_is_bit_exact(hosts, tmp_path):
    (job,) = jobs_of(7, tmp_path)

    (ran,) = run_ssh([job], tmp_path, hosts.site(), per_node=4)

    outcome = judged(job, ran)
    assert (outcome.status, outcome.problems) == ("verified", ())
    assert len(ran.reports) == job.world == 8
    assert {path.name for path in Path(job.out_dir).glob("host-*.log")} == {
        "host-0.log",
        "host-1.log",
    }


def test_the_command_line_takes_the_hosts_of_a_cluster_file(hosts, tmp_path, capsys):
    place = {"name": "two", "backend": "ssh", "nodes": 2}
    site = hosts.site().model_dump(mode="json", exclude_defaults=True)
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump({**place, "ssh": site}))
    words = f"refit run kimi_k2 -s 3 --scaled tiny --iterations 2 --cluster {path}"

    code = main(f"{words} --launch ssh --per-node 4 --out {tmp_path}/out".split())

    assert "verified" in capsys.readouterr().out
    assert code == 0


def test_too_few_hosts_are_told_with_the_arithmetic(hosts, tmp_path):
    with pytest.raises(SpecError, match=r"8 ranks / 2 per host = 4 hosts"):
        run_ssh(jobs_of(7, tmp_path), tmp_path, hosts.site(), per_node=2)


def test_a_python_without_torch_is_told_with_its_log(hosts, tmp_path, monkeypatch):
    monkeypatch.setenv(PYTHON_VARIABLE, "/usr/bin/false")

    with pytest.raises(InvalidRun, match=r"ended with \[1, 1\]") as caught:
        run_ssh(jobs_of(7, tmp_path), tmp_path, hosts.site(), per_node=4)

    assert caught.value.where == Path(jobs_of(7, tmp_path)[0].out_dir) / "host-0.log"


def living(mark):
    return [
        p.pid
        for p in psutil.process_iter(["cmdline", "name"])
        if mark in " ".join(p.info["cmdline"] or ())
        and "sshd" not in (p.info["name"] or "")
    ]


def test_a_command_does_not_outlive_its_connection(hosts, tmp_path):
    site = hosts.site()
    mark = f"mark-{tmp_path.name}"
    words = ("sh", "-c", f"echo {mark}; sleep 600; true")

    with remote_command(site, site.hosts[0], words, tmp_path / "one.log"):
        wait_until(lambda: living(mark), "the start")

    wait_until(lambda: not living(mark), "the end")


def test_a_silent_host_is_a_loss(hosts, tmp_path):
    site = hosts.site()
    with (
        remote_command(site, site.hosts[0], ["sleep", "60"], tmp_path / "log") as it,
        pytest.raises(InfrastructureLost, match="said nothing"),
    ):
        it.wait(0.3)
