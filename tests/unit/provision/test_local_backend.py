"""What only the local backend decides: addresses, GPUs, refusals, requests."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace

import pytest

from pytest_pd.errors import ProvisionError
from pytest_pd.plan.model import NodePlan
from pytest_pd.provision import identity, local
from pytest_pd.provision.identity import marked_with
from pytest_pd.provision.local import (
    LocalBackend,
    LocalProcess,
    launch_request,
    loopback_addresses,
    mark_of,
    refuse_missing_program,
    service_env,
)
from pytest_pd.provision.rundir import RunDir, make_run_id
from pytest_pd.spec.cluster import ClusterSpec
from tests.kit import plan_of, python, service, wait_until


def test_one_node_is_the_usual_loopback_address():
    assert loopback_addresses(plan_of([])) == {"node0": "127.0.0.1"}


def test_a_rehearsal_leaves_the_usual_address_to_what_it_plays():
    plan = replace(plan_of([]), rehearsal=True)

    assert loopback_addresses(plan) == {"node0": "127.0.1.1"}


@pytest.mark.parametrize("count", [2, 24, 1024])
def test_each_of_several_nodes_has_an_address_of_its_own(count):
    found = loopback_addresses(plan_of([], nodes=count))

    assert len(set(found.values())) == count
    assert all(address.startswith("127.0.") for address in found.values())
    assert all(0 < int(address.split(".")[3]) < 255 for address in found.values())


def test_gpu_ids_become_the_visible_devices():
    env = service_env(service("p", "x", gpu_ids=(2, 3)))

    assert env["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_a_plan_that_sets_the_visible_devices_is_obeyed():
    given = {"CUDA_VISIBLE_DEVICES": "7"}

    assert service_env(service("p", "x", gpu_ids=(2,), env=given)) == given


def test_no_gpus_leave_the_variable_alone():
    assert service_env(service("p", "x")) == {}


def test_an_image_is_refused_with_the_service_that_wants_it():
    plan = plan_of([service("p", "x", image="vllm:1")])

    with pytest.raises(ProvisionError, match="'p' wants the image 'vllm:1'"):
        LocalBackend().check(ClusterSpec(name="local"), [plan])


def test_a_program_is_looked_for_on_the_path_of_the_service(tmp_path):
    program = tmp_path / "my-engine"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)

    refuse_missing_program(service("p", "my-engine"), {"PATH": str(tmp_path)})
    with pytest.raises(ProvisionError, match="is not on PATH"):
        refuse_missing_program(service("p", "my-engine"), {})


def test_a_path_that_is_no_program_is_called_so(tmp_path):
    (tmp_path / "data").write_text("")

    with pytest.raises(ProvisionError, match="is not an executable file"):
        refuse_missing_program(service("p", str(tmp_path / "data")), {})


def test_a_request_is_plain_json_and_names_whose_it_is(tmp_path):
    context = RunDir(tmp_path / "toy").context("abcd2345", 5.0)
    odd = service("p", "x", "it's\n", env={"A": "ü\udcff"})

    request = json.loads(json.dumps(launch_request(odd, context)))

    assert request["mark"] == "abcd2345/toy/p"
    assert request["argv"] == ["x", "it's\n"]
    # a title would stand where the mark does
    assert request["env"] == {"SPT_NOENV": "1", "A": "ü\udcff"}
    assert request["poll_s"] < request["ttl_s"] / 5


def test_marks_of_a_topology_begin_alike(tmp_path):
    context = RunDir(tmp_path / "toy").context("abcd2345", 5.0)

    assert mark_of(context, "decode-0").startswith(mark_of(context))


def test_a_machine_that_refuses_processes_is_one_clear_error(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(local.subprocess, "Popen", refuse)
    context = RunDir(tmp_path / "toy").context("abcd2345", 5.0)
    cluster, plan = ClusterSpec(name="local"), plan_of([service("p", "sh")])

    refused = pytest.raises(ProvisionError, match="cannot be started")
    with LocalBackend().allocate(cluster, plan, context) as made, refused as caught:
        made.start(plan.services[0])

    assert "ulimit" in caught.value.hint


def test_preflight_looks_at_programs_ports_and_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    plan = plan_of([service("p", "no-such-engine")])
    plan = replace(plan, nodes=(NodePlan("node0", "node0", 1, 1),))

    found = LocalBackend().preflight(ClusterSpec(name="local"), plan, tmp_path)

    assert [f.what for f in found if f.ok is False] == [
        "program no-such-engine",
        "GPUs",
    ]


FAMILY = (
    "import subprocess, time; subprocess.Popen(['sh', '-c', 'setsid sleep 600 & :']);"
    "subprocess.Popen(['sleep', '600']); print('up', flush=True); time.sleep(600)"
)


def test_what_cannot_be_killed_is_told_and_the_others_end(tmp_path, monkeypatch):
    run = RunDir(tmp_path / "toy")
    context = run.context(make_run_id(), 300.0)
    services = [python(name, "import time; time.sleep(600)") for name in ("a", "b")]
    cluster, plan = ClusterSpec(name="local"), plan_of(services)
    stuck = []

    def strays(process):
        return {4711} if process.name == "b" and stuck else set()

    monkeypatch.setattr(LocalProcess, "_strays", strays)
    monkeypatch.setattr(identity, "KILLED_S", 0.1)
    monkeypatch.setattr(identity, "send", lambda pids, _: stuck.append(pids))
    allowed = pytest.raises(ProvisionError, match=r"'b' cannot be ended: pid 4711\.")
    with allowed as caught, LocalBackend().allocate(cluster, plan, context) as made:
        for each in services:
            made.start(each)
        stuck.append("D")

    assert "dmesg" in caught.value.hint
    assert None not in [process.exit_code() for process in made._processes]


def test_stopping_finds_what_a_killed_launcher_left(tmp_path):
    """The kernel ends the service with its launcher, and not its children."""
    run = RunDir(tmp_path / "toy")
    context = run.context(make_run_id(), 300.0)
    cluster, plan = ClusterSpec(name="local"), plan_of([python("p", FAMILY)])
    mark = mark_of(context, "p")
    with LocalBackend().allocate(cluster, plan, context) as allocation:
        process = allocation.start(plan.services[0])
        wait_until(lambda: len(list(marked_with(mark))) == 4, "the family")
        os.kill(process.launcher.pid, signal.SIGKILL)
        wait_until(lambda: process.exit_code() is not None, "the launcher's end")

        process.stop(grace_s=1.0)

        wait_until(lambda: not list(marked_with(mark)), "the children's end")
