"""Reap ends what is proven to be a run's, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from pytest_pd import cli
from pytest_pd.errors import ProvisionError
from pytest_pd.provision.deploy import deploy
from pytest_pd.provision.identity import Identity
from pytest_pd.provision.launcher import MARK, write_json
from pytest_pd.provision.local import LocalBackend
from pytest_pd.provision.reap import (
    end_run,
    is_used,
    owner_of,
    reap,
    survivors,
    wait_lease_over,
)
from pytest_pd.provision.rundir import RunDir, forget, make_run_id
from pytest_pd.spec.cluster import ClusterSpec
from tests.e2e.lease_harness import harness, left_of
from tests.kit import toy_topology, wait_until

MINE, OTHER = make_run_id(), make_run_id()
"""Unlike those of any test that runs beside: reap looks at the whole machine."""
SLEEP = "import time; time.sleep(600)"


@pytest.fixture(autouse=True)
def own_user_dir(tmp_path, monkeypatch):
    (tmp_path / "runtime").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))


@pytest.fixture
def run(tmp_path):
    """A run whose harness is gone, with nothing of it alive."""
    made = RunDir(tmp_path / "runs" / f"20260101T000000Z-{MINE}" / "toy")
    made.create()
    made.write_manifest(run_id=MINE, topology="toy", lease_ttl_s=1.0)
    return made


@pytest.fixture
def spawn():
    children = []

    def start(mark=None):
        env = {**os.environ, **({MARK: mark} if mark else {})}
        words = [sys.executable, "-S", "-E", "-c", SLEEP]
        children.append(subprocess.Popen(words, env=env))
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.wait()


def recorded(run, name, pid, **changes):
    record = {**Identity.of(pid).record(), **changes}
    record |= {f"launcher_{key}": record[key] for key in ("pid", "start_time")}
    write_json(str(run.started(name)), record)


def gone(child):
    return child.poll() is not None


def test_a_recorded_process_is_ended(run, spawn):
    child = spawn()
    recorded(run, "decode-0", child.pid)

    (reaped,) = reap([run.path.parent])

    assert [s.pid for s in reaped.ended] == [child.pid]
    wait_until(lambda: gone(child), "the end")


def test_a_marked_process_that_nobody_recorded_is_ended(run, spawn):
    child = spawn(f"{MINE}/toy/decode-0")

    (reaped,) = reap([run.path.parent])

    assert [(s.part, s.pid) for s in reaped.ended] == [("stray", child.pid)]
    wait_until(lambda: gone(child), "the end")


@pytest.mark.parametrize(
    "lie", [{"start_time": 5}, {"boot_id": "another"}, {"host": "another"}], ids=str
)
def test_a_pid_that_now_belongs_to_another_is_left_alone(run, spawn, lie):
    child = spawn()
    recorded(run, "decode-0", child.pid, **lie)

    (reaped,) = reap([run.path.parent])

    assert reaped.ended == ()
    assert not gone(child)


@pytest.mark.parametrize(
    "mark",
    [None, f"{OTHER}/toy/decode-0", f"{MINE}/other/decode-0"],
    ids=["none", "another run", "another topology"],
)
def test_processes_of_others_are_left_alone(run, spawn, mark):
    child = spawn(mark)

    (reaped,) = reap([run.path.parent])

    assert reaped.ended == ()
    assert not gone(child)


def test_a_run_whose_harness_lives_is_left_alone(run, spawn):
    service, owner = spawn(), spawn()
    recorded(run, "decode-0", service.pid)
    run.write_manifest(harness=Identity.of(owner.pid).record())

    (reaped,) = reap([run.path.parent])

    assert reaped.owner == f"pid {owner.pid}"
    assert not gone(service)


@pytest.mark.parametrize("left_s", [60, -3600], ids=["in time", "clock was set"])
def test_a_kept_run_is_left_alone_until_its_keeper_is_gone(run, spawn, left_s):
    keeper = spawn()
    record = Identity.of(keeper.pid).record()
    run.write_manifest(keeper=record, kept_until_s=time.time() + left_s)
    assert "keeper" in owner_of(run)
    assert is_used(run.path.parent)

    keeper.kill()
    keeper.wait()
    assert owner_of(run) == ""
    assert not is_used(run.path.parent)


def test_a_run_that_cannot_be_looked_at_may_be_in_use(run):
    run.manifest.unlink()
    run.manifest.mkdir()

    assert is_used(run.path.parent)


def test_down_ends_a_run_whoever_uses_it(run, spawn):
    service, owner = spawn(), spawn()
    recorded(run, "decode-0", service.pid)
    run.write_manifest(harness=Identity.of(owner.pid).record())

    end_run(run.path.parent)

    wait_until(lambda: gone(service), "the end")
    assert not gone(owner)
    assert owner_of(run) == ""


def test_one_that_does_not_listen_is_killed(run, spawn, monkeypatch):
    monkeypatch.setattr("pytest_pd.provision.reap.ASKED_S", 0.3)
    deaf = "import signal; signal.signal(15, signal.SIG_IGN); print(1, flush=True)"
    code = f"{deaf}; {SLEEP}"
    words = [sys.executable, "-S", "-c", code]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        recorded(run, "decode-0", child.pid)

        end_run(run.path.parent)

        assert child.wait(60) == -signal.SIGKILL


def test_a_run_with_nothing_left_is_no_error(run):
    (reaped,) = reap([run.path.parent])

    assert (reaped.owner, reaped.ended) == ("", ())


def test_waiting_for_a_lease_where_there_was_none_returns(tmp_path):
    wait_lease_over(tmp_path / "never")


def test_waiting_for_a_lease_ends_when_all_has_ended(run, spawn):
    child = spawn()
    recorded(run, "decode-0", child.pid)
    looked = []

    def sleep(seconds):
        looked.append(seconds)
        child.kill()
        child.wait()

    wait_lease_over(run.path, sleep=sleep)

    assert looked


def test_a_lease_that_does_not_end_in_its_time_is_ended(run, spawn):
    child = spawn()
    recorded(run, "decode-0", child.pid)
    now_s = iter(range(0, 1000, 5))

    wait_lease_over(run.path, clock=lambda: float(next(now_s)), sleep=lambda _: None)

    wait_until(lambda: gone(child), "the end")


def test_a_topology_that_another_process_owns_is_not_waited_for(run, spawn):
    run.write_manifest(harness=Identity.of(spawn().pid).record())

    with pytest.raises(ProvisionError, match="owns it"):
        wait_lease_over(run.path)


def test_a_topology_that_is_kept_is_not_taken_over(run, spawn):
    service, keeper = spawn(), spawn()
    recorded(run, "decode-0", service.pid)
    record = Identity.of(keeper.pid).record()
    run.write_manifest(keeper=record, kept_until_s=time.time() + 60)

    with pytest.raises(ProvisionError, match="is up: its keeper, until") as caught:
        wait_lease_over(run.path, sleep=lambda _: pytest.fail("it was waited for"))

    assert f"pytest-pd down {MINE}" in caught.value.hint
    assert not gone(service)


def test_the_commands_reap_what_a_killed_harness_left(tmp_path, capsys, monkeypatch):
    """The keeper is killed with the harness, so that the lease does not do it."""
    run_id = make_run_id()
    run = RunDir(tmp_path / "runs" / f"x-{run_id}" / "toy")
    with harness(run.path, run_id, ttl_s=300.0) as child:
        assert child.stdout.readline() == b"up\n"
        os.kill(run.read_manifest()["keeper"]["pid"], signal.SIGKILL)
        child.kill()
        child.wait()
    wait_until(lambda: len(survivors(run)) == 6, "the end of the keeper")

    runs = str(tmp_path / "runs")
    assert cli.main(["reap", "--runs", runs, "--dry-run"]) == 0
    assert "would end" in capsys.readouterr().out
    assert len(survivors(run)) == 6
    assert cli.main(["reap", "--runs", runs]) == 0
    assert "ended 6 processes" in capsys.readouterr().out
    assert left_of(run.path, run_id) == []


def test_keep_attach_down_and_prune_as_commands_do_it(tmp_path, capsys):
    run_id = make_run_id()
    run = RunDir(tmp_path / "runs" / f"x-{run_id}" / "toy")
    cluster = ClusterSpec(name="local")
    with deploy(
        toy_topology(),
        LocalBackend(),
        cluster,
        run.context(run_id, 5.0),
        keep_s=600.0,
    ):
        pass
    runs = str(tmp_path / "runs")
    assert "keeper" in owner_of(run)

    assert cli.main(["reap", "--runs", runs]) == 0
    assert "left alone" in capsys.readouterr().out
    assert cli.main(["prune", "--runs", runs, "--keep", "0"]) == 0
    assert run.path.is_dir()
    assert cli.main(["down", run_id[:6], "--runs", runs]) == 0
    assert "router" in capsys.readouterr().out
    assert left_of(run.path, run_id) == []
    assert cli.main(["prune", "--runs", runs, "--keep", "0"]) == 0
    assert not run.path.exists()
    forget(run_id)


def test_down_of_an_unknown_run_is_one_line_and_code_2(tmp_path, capsys):
    assert cli.main(["down", "nope", "--runs", str(tmp_path)]) == 2
    assert "There is no run whose id begins with 'nope'" in capsys.readouterr().err
