"""Bring-up: order, liveness inside the wait, ports, one token, undo in reverse."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from pytest_pd.errors import ProcessDied, ProvisionError, ReadyTimeout, SpecError
from pytest_pd.plan.model import Role
from pytest_pd.probe.completion import one_token
from pytest_pd.provision import bringup as module
from pytest_pd.provision.bringup import poll_s
from pytest_pd.provision.deploy import deploy
from pytest_pd.provision.identity import marked_with
from pytest_pd.provision.local import LocalBackend
from pytest_pd.provision.plan_file import read_plan
from pytest_pd.provision.rundir import RunDir, forget, make_run_id
from pytest_pd.provision.running import Running, waves
from pytest_pd.spec.cluster import ClusterSpec
from tests.kit import free_ports, service, toy_topology, wait_until

CLUSTER = ClusterSpec(name="local")
NEVER = {"decode-0": ["--ready-after", "600"]}


@pytest.fixture
def up(tmp_path):
    """Return a function that brings a toy topology up in this test's folder."""
    run_id = make_run_id()

    @contextmanager
    def bring(make_plan=None, backend=None, folder="toy", **options):
        context = RunDir(tmp_path / "run" / folder).context(run_id, 5.0)
        with deploy(
            make_plan or toy_topology(),
            backend or LocalBackend(),
            CLUSTER,
            context,
            **options,
        ) as made:
            yield made

    yield bring
    forget(run_id)
    assert list(marked_with(f"{run_id}/")) == []


def test_it_is_up_and_answers_with_a_token(up):
    with up() as deployment:
        deployment.check_alive()
        before = deployment.evidence()
        log = before.since(before)

    assert set(deployment.processes) == {"prefill-0", "decode-0", "router"}
    assert deployment.endpoints(Role.DECODE)[0].service == "decode-0"
    assert before.pages["router"].total("toy_requests_total") == 1
    assert log.new_log("router") == ""


def test_every_stage_has_its_time(up):
    with up() as deployment:
        pass

    assert {"allocate", "ready:router", "first_token", "total"} <= set(
        deployment.timings
    )


def test_what_waits_starts_after_what_it_waits_for(up, tmp_path):
    with up(toy_topology({"decode-0": ["--ready-after", "0.5"]})) as deployment:
        timings = deployment.timings
        order = list(RunDir(deployment.run_dir).started_records())

    assert order[-1] == "router"
    assert timings["ready:router"] > timings["ready:decode-0"]


def test_nothing_is_left_when_the_block_fails(up):
    with pytest.raises(ZeroDivisionError), up():
        raise ZeroDivisionError


def test_the_plan_that_was_started_can_be_read_again(up):
    with up() as deployment:
        assert read_plan(RunDir(deployment.run_dir)) == deployment.plan


@pytest.mark.parametrize("code", ["0", "7"])
def test_a_death_ends_the_wait_whatever_its_code(up, code):
    topology = toy_topology(
        {"decode-0": ["--ready-after", "600", "--die-after", "0.2", "--code", code]}
    )

    with pytest.raises(ProcessDied) as caught, up(topology):
        pass

    said = str(caught.value)
    assert f"'decode-0' exited with code {code}" in said
    assert "first error, of decode-0: 2026-01-01 00:00:00 ERROR toy is ill" in said
    assert "toy starts" in said
    assert said.endswith("logs/decode-0.log")


def storing(path):
    """Return a toy topology that hands KV over through files."""
    toy = toy_topology()

    def make_plan(facts):
        plan = toy(facts)
        return replace(plan, expected=replace(plan.expected, kv_path=str(path)))

    return make_plan


def test_kv_of_earlier_runs_is_removed_but_not_of_one_that_is_up(up, tmp_path):
    prompt, said = tmp_path / "pd" / "kv" / ("0" * 32), []
    prompt.mkdir(parents=True)
    with up(storing(prompt.parent), folder="first"):
        assert not prompt.exists()
        prompt.mkdir()
        with up(storing(prompt.parent), folder="second", progress=said.append) as two:
            assert prompt.exists()
    with up(storing(prompt.parent), folder="third"):
        assert not prompt.exists()

    why = "another run uses it"
    assert RunDir(two.run_dir).read_manifest()["kv_not_cleared"] == why
    assert f"toy: the KV in {prompt.parent} is not cleared: {why}" in said


def test_a_death_before_the_first_token_is_a_death(up, monkeypatch):
    monkeypatch.setattr(module, "one_token", lambda *_, **__: "HTTP 503: no worker")
    topology = toy_topology({"prefill-0": ["--die-after", "2.0"]})

    with pytest.raises(ProcessDied, match="prefill-0"), up(topology):
        pass


def test_a_death_while_it_is_up_is_seen_at_the_next_look(up):
    with up() as deployment:
        deployment.processes["decode-0"].kill(9)
        process = deployment.processes["decode-0"]
        wait_until(lambda: process.exit_code() is not None, "the exit code")

        with pytest.raises(ProcessDied, match="killed by signal 9"):
            deployment.check_alive()


def test_a_budget_that_is_used_up_says_what_was_waited_for(up):
    topology = toy_topology(NEVER, budgets_s={"decode-0": 3.0})

    said = r"'decode-0' was not ready.*HTTP 503"
    with pytest.raises(ReadyTimeout, match=said), up(topology):
        pass


def test_silence_ends_the_wait(up):
    topology = toy_topology(NEVER, stalls_s={"decode-0": 1.5})

    with (
        pytest.raises(ReadyTimeout, match="'decode-0' has shown no progress for"),
        up(topology),
    ):
        pass


def test_no_token_within_the_budget_says_what_the_router_answered(up, monkeypatch):
    monkeypatch.setattr(module, "one_token", lambda *_, **__: "HTTP 404: not found")
    monkeypatch.setattr(module, "FIRST_TOKEN_BUDGET_S", 0.3)

    with pytest.raises(ReadyTimeout, match="HTTP 404: not found"), up():
        pass


def test_a_taken_port_is_planned_around(up):
    ports = free_ports(3)
    taken = socket.create_server(("127.0.0.1", ports[1]))
    with taken, up(toy_topology(ports=ports)) as deployment:
        used = deployment.plan.service("decode-0").ports["http"]

    assert used != ports[1]


def test_a_fixed_port_that_is_taken_names_its_holder(up):
    ports = free_ports(3)
    said = f"Port {ports[2]} on node0 is in use by pid {os.getpid()}"
    topology = toy_topology(ports=ports, fixed=True)
    taken = socket.create_server(("127.0.0.1", ports[2]))
    with taken, pytest.raises(ProvisionError, match=said), up(topology):
        pass


def test_a_plan_that_refuses_another_port_names_the_holder_of_the_fixed_one(up):
    ports, movable = free_ports(3), free_ports(1)
    free = toy_topology(ports=[movable[0], *ports[1:]])

    def fixed(facts):
        if ("node0", ports[2]) in facts.busy:
            raise SpecError(f"router is to use port {ports[2]} on node0.")
        return free(facts)

    first = socket.create_server(("127.0.0.1", movable[0]))
    second = socket.create_server(("127.0.0.1", ports[2]))
    refused = pytest.raises(ProvisionError, match=f"Port {ports[2]} on node0")
    with first, second, refused, up(fixed):
        pass


def test_progress_names_who_is_waited_for(up):
    lines = []
    with up(
        toy_topology({"decode-0": ["--ready-after", "0.5"]}), progress=lines.append
    ):
        pass

    assert any("2/3 ready; router" in line or "decode-0" in line for line in lines)
    assert lines[0] == "toy: waiting for 1 node(s)"


class Refusing(LocalBackend):
    """A backend whose services cannot be stopped and whose nodes cannot be left."""

    @contextmanager
    def allocate(self, cluster, plan, context):
        with super().allocate(cluster, plan, context) as allocation:
            yield allocation
        raise ProvisionError("the nodes cannot be given back.")


def test_a_failure_in_teardown_does_not_hide_the_first(up):
    with pytest.raises(ZeroDivisionError) as caught, up(backend=Refusing()):
        raise ZeroDivisionError

    assert any("cannot be given back" in note for note in caught.value.__notes__)


def test_a_failure_in_teardown_alone_is_an_error(up):
    refused = pytest.raises(ProvisionError, match="cannot be given back")
    with refused, up(backend=Refusing()) as deployment:
        run = RunDir(deployment.run_dir)

    assert "cannot be given back" in run.read_manifest()["not_ended"]


class Interrupted(LocalBackend):
    """A backend whose nodes are being given back when Ctrl-C comes."""

    @contextmanager
    def allocate(self, cluster, plan, context):
        with super().allocate(cluster, plan, context) as allocation:
            yield allocation
        raise KeyboardInterrupt


def test_what_ctrl_c_left_is_tried_again(up):
    with pytest.raises(KeyboardInterrupt), up(backend=Interrupted()) as deployment:
        run = RunDir(deployment.run_dir)

    assert run.read_manifest()["not_ended"] == "KeyboardInterrupt"


def test_pages_are_kept_from_the_begin_and_the_end(up):
    with up() as deployment:
        run = RunDir(deployment.run_dir)
        one_token(deployment.url, "toy", salt="x")

    pages = [run.metrics("router", when) for when in ("ready", "end")]
    assert [page.read_text().split()[-1] for page in pages] == ["1", "2"]


def test_a_service_that_is_gone_in_the_end_leaves_why(up):
    with up() as deployment:
        process, run = deployment.processes["decode-0"], RunDir(deployment.run_dir)
        process.kill(9)
        wait_until(lambda: process.exit_code() is not None, "the exit code")

    page = run.metrics("decode-0", "end").with_suffix(".failed")
    assert "refused" in page.read_text()


def test_the_folder_can_be_used_again(up):
    for _ in range(2):
        with up() as deployment:
            deployment.check_alive()


def test_the_manifest_tells_owner_and_end(up):
    with up() as deployment:
        run = RunDir(deployment.run_dir)
        manifest = run.read_manifest()

    assert manifest["harness"]["pid"] == os.getpid()
    assert manifest["url"] == deployment.url
    assert "ended_s" not in manifest
    assert run.read_manifest()["ended_s"] <= time.time()


def test_a_second_ctrl_c_kills_at_once():
    asked, release = [], threading.Event()

    class Stubborn:
        def stop(self, *, grace_s):
            asked.append(grace_s)
            if grace_s > 0:
                os.kill(os.getpid(), signal.SIGINT)
                release.wait(60)
            release.set()

    running = Running({"a": Stubborn()}, {"a": service("a", "x")})

    with pytest.raises(KeyboardInterrupt):
        running.stop()

    assert asked == [10.0, 0.0]


def test_what_others_wait_for_is_stopped_last():
    services = {
        each.name: each
        for each in (
            service("etcd", "x"),
            service("p", "x", after=("etcd",)),
            service("d", "x", after=("etcd",)),
            service("router", "x", after=("p", "d")),
        )
    }

    assert waves(services) == [["router"], ["d", "p"], ["etcd"]]


def test_a_circle_of_waiting_is_stopped_too():
    services = {
        "a": service("a", "x", after=("b",)),
        "b": service("b", "x", after=("a",)),
    }

    assert waves(services) == [["a", "b"]]


def test_polling_gets_slower_but_never_slow():
    assert [poll_s(waited) for waited in (0, 1, 10, 1000)] == [0.02, 0.02, 0.2, 0.5]
