"""What an SSH host may write here: logs and records of its run, and nothing else."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace

import pytest

from pytest_pd.errors import InfrastructureLost
from pytest_pd.provision.rundir import RunDir
from pytest_pd.provision.ssh_host import RemoteHost
from pytest_pd.provision.ssh_process import SshProcess


@pytest.fixture
def run(tmp_path):
    made = RunDir(tmp_path / "run" / "toy")
    made.create()
    return made


@pytest.fixture
def host(run):
    site = SimpleNamespace(python="python3")
    return RemoteHost(site, SimpleNamespace(name="gpu-a"), "/r", run.path)


def send(host, name, text="x"):
    data = base64.b64encode(text.encode()).decode()
    host._take(json.dumps({"file": name, "offset": 0, "data": data}))


def files_below(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "name", ["state/one.started.json", "logs/one.log", "logs/deep/er/core.1"]
)
def test_logs_and_records_are_written(host, run, name):
    send(host, name)

    assert files_below(run.path) == {name}
    assert host.refused == ""


@pytest.mark.parametrize(
    "name",
    [
        "../../.bashrc",
        "logs/../../../.bashrc",
        "state/../../x.json",
        "{root}/anywhere",
        "manifest.json",
        "lease",
        "state/deep/one.json",
        "state/one.sh",
        "logs",
        "",
    ],
)
def test_any_other_name_is_refused_and_told_with_the_host(host, run, tmp_path, name):
    before = files_below(tmp_path)
    name = name.format(root=tmp_path)

    send(host, name)
    send(host, "logs/one.log")

    assert files_below(tmp_path) == before | {"run/toy/logs/one.log"}
    if name:
        process = SshProcess(
            "one", run.path / "logs/one.log", run, host, mark="toy/one"
        )
        with pytest.raises(InfrastructureLost, match=r"gpu-a sent a file") as caught:
            process.exit_code()
        assert repr(name) in str(caught.value)


def test_a_link_here_is_not_followed_out_of_the_run(host, run, tmp_path):
    (run.logs / "out").symlink_to(tmp_path)

    send(host, "logs/out/x")

    assert files_below(tmp_path) == set()
    assert host.refused == "logs/out/x"


@pytest.mark.parametrize(
    "line", ["", "{", "3", '"gone"', '{"gone": []}', '{"file": 3}', '{"file": "logs"}']
)
def test_a_line_that_says_nothing_is_left_out(host, run, line):
    host._take(line)

    assert files_below(run.path) == set()


def test_a_log_of_json_in_pieces_is_whole(host, run):
    send(host, "logs/trace.json", "[1,")
    data = base64.b64encode(b"2]").decode()
    host._take(json.dumps({"file": "logs/trace.json", "offset": 3, "data": data}))

    assert (run.logs / "trace.json").read_text() == "[1,2]"
