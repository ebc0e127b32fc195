"""Preflight looks before anything is started, and what it misses it says."""

from __future__ import annotations

import os
import socket

import pytest

from pytest_pd import cli
from pytest_pd.plan.model import NodePlan
from pytest_pd.provision import preflight
from pytest_pd.provision.preflight import (
    gpus,
    harness_findings,
    open_files,
    ports,
    programs,
)
from tests.kit import free_ports, plan_of, service


def with_gpus(count):
    from dataclasses import replace

    return replace(plan_of([]), nodes=(NodePlan("node0", "node0", count, count),))


def test_a_program_that_is_missing_names_who_needs_it():
    plan = plan_of([service("p", "no-such-engine"), service("d", "no-such-engine")])

    (found,) = programs(plan)

    assert found.ok is False
    assert "p, d need it" in found.said
    assert found.hint


def test_a_program_that_is_there_is_shown_with_its_path():
    (found,) = programs(plan_of([service("p", "sh")]))

    assert found.ok
    assert found.said.endswith("/sh")


def test_a_taken_port_names_its_holder():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        plan = plan_of([service("p", "x", ports={"http": port})])
        summary, found = ports(plan, {"node0": "127.0.0.1"})

    assert summary.said == "0 of 1 are free"
    assert f"pid {os.getpid()}" in found.said


def test_free_ports_are_one_line():
    plan = plan_of([service("p", "x", ports={"http": free_ports(1)[0]})])

    assert [f.ok for f in ports(plan, {"node0": "127.0.0.1"})] == [True]


@pytest.mark.parametrize(("here", "ok"), [(8, True), (4, True), (3, False)])
def test_gpus_are_counted(monkeypatch, here, ok):
    monkeypatch.setattr(preflight, "count_gpus", lambda: here)

    assert gpus(with_gpus(4)).ok is ok


def test_no_driver_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    found = gpus(with_gpus(1))

    assert found.ok is False
    assert "nvidia-smi" in found.said


def test_a_low_limit_of_open_files_is_a_warning(monkeypatch):
    monkeypatch.setattr(preflight.resource, "getrlimit", lambda _: (256, 1024))

    found = open_files(plan_of([]))

    assert found.ok is None
    assert "ulimit" in found.hint


def test_a_full_disk_is_said(tmp_path):
    from dataclasses import replace

    found = list(harness_findings(replace(plan_of([]), disk_bytes=10**18), tmp_path))

    assert [f.ok for f in found] == [True, False]


def test_looking_makes_no_folder(tmp_path):
    list(harness_findings(plan_of([]), tmp_path / "runs" / "x"))

    assert list(tmp_path.iterdir()) == []


def test_the_command_says_yes_for_the_default(capsys, tmp_path):
    code = cli.main(["preflight", "local_1p1d", "--run-dir", str(tmp_path)])

    assert code == 0, capsys.readouterr().out
    assert "ok  cluster: local can hold the plan" in capsys.readouterr().out


def test_the_command_says_no_for_hardware_that_is_not_here(capsys, tmp_path):
    assert cli.main(["preflight", "k2_2p1d", "--run-dir", str(tmp_path)]) == 1

    assert "NO  hardware: the topology is for gb200" in capsys.readouterr().out


def test_what_a_rehearsal_needs_is_here_without_the_hardware(tmp_path, capsys):
    words = ["preflight", "k2_2p1d", "--rehearse", "--run-dir", str(tmp_path)]

    assert cli.main(words) == 0
    assert "k2_2p1d@rehearsal on local" in capsys.readouterr().out
