"""What lies elsewhere is ended by its backend, with the cluster it was started on."""

from __future__ import annotations

import os

import pytest

from pytest_pd import cli
from pytest_pd.command.preflight import left_overs
from pytest_pd.errors import BackendMissing, ProvisionError
from pytest_pd.provision import BACKENDS
from pytest_pd.provision import reap as module
from pytest_pd.provision.identity import Identity
from pytest_pd.provision.lease import held
from pytest_pd.provision.lease_keeper import write_lease
from pytest_pd.provision.reap import end_run, is_used, owner_of, reap
from pytest_pd.provision.rundir import RunDir


class Elsewhere:
    """A backend that keeps jobs on a site."""

    asked: list = []  # noqa: RUF012

    def clean(self, cluster, context):
        if context.run_id == "stubborn":
            raise BackendMissing("There is no 'scancel' on PATH.")
        self.asked.append((cluster.name, context.run_id, context.lease_ttl_s))


@pytest.fixture
def run(tmp_path, monkeypatch):
    (tmp_path / "runtime").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setattr(Elsewhere, "asked", [])
    monkeypatch.setattr(module, "BACKENDS", {"elsewhere": Elsewhere, "local": object})
    return started(tmp_path, "deadbeef")


def started(root, run_id, **facts):
    """Return a run whose things a backend keeps elsewhere."""
    made = RunDir(root / f"20260101T000000Z-{run_id}" / "toy")
    made.create()
    cluster = {"name": "site", "backend": "local"}
    given = {"backend": "elsewhere", "cluster": cluster, "lease_ttl_s": 1.0}
    made.write_manifest(run_id=run_id, **{**given, **facts})
    return made


def on_login_1(run, **other):
    """Let another host have started it, with a pid that lives here too."""
    given = other or {"host": "login-1"}
    record = {**Identity.of(os.getpid()).record(), **given}
    run.write_manifest(harness=record)


def test_a_backend_that_keeps_things_elsewhere_is_asked(run):
    found = end_run(run.path.parent)

    assert Elsewhere.asked == [("site", "deadbeef", 1.0)]
    assert found.asked == ("elsewhere",)


def test_a_backend_of_this_machine_is_not(run):
    run.write_manifest(backend="local")

    end_run(run.path.parent)

    assert Elsewhere.asked == []
    assert run.read_manifest()["ended_s"]


def test_a_run_of_another_host_is_left_alone_while_its_lease_changes(run):
    on_login_1(run)

    with held(run.lease, 1.0):
        (found,) = reap([run.path.parent])

    assert found.owner == f"pid {os.getpid()} on login-1"
    assert Elsewhere.asked == []


def test_a_run_of_another_container_of_this_host_is_judged_by_its_lease(run):
    on_login_1(run, pid_ns="pid:[1]", pid=2**22 + 1)

    with held(run.lease, 1.0):
        (kept,) = reap([run.path.parent])
    (ended,) = reap([run.path.parent])

    assert kept.owner.startswith(f"pid {2**22 + 1} on ")
    assert ended.owner == ""


def test_a_run_of_another_host_is_ended_when_its_lease_stands_still(run):
    on_login_1(run)
    write_lease(str(run.lease), "7")

    (found,) = reap([run.path.parent])

    assert found.owner == ""
    assert [asked[1] for asked in Elsewhere.asked] == ["deadbeef"]


def test_a_run_of_another_host_that_gave_its_lease_back_is_used_by_nobody(run):
    on_login_1(run)
    write_lease(str(run.lease), "bye")

    assert owner_of(run) == ""


def test_a_dry_run_tells_which_backend_would_be_asked(run, tmp_path, capsys):
    assert cli.main(["reap", "--dry-run", "--runs", str(tmp_path)]) == 0

    said = capsys.readouterr().out
    assert "deadbeef: would end what carries its id on elsewhere" in said
    assert Elsewhere.asked == []
    assert "ended_s" not in run.read_manifest()


def test_a_run_that_has_ended_is_not_ended_again(run):
    run.write_manifest(ended_s=5.0)

    (found,) = reap([run.path.parent])

    assert (found.ended, found.asked, Elsewhere.asked) == ((), (), [])


def test_what_could_not_be_ended_is_ended_by_the_next_reap(run):
    run.write_manifest(ended_s=5.0, not_ended="'one' on gpu-a cannot be ended.")
    assert is_used(run.path.parent)

    list(reap([run.path.parent]))
    list(reap([run.path.parent]))

    assert [asked[1] for asked in Elsewhere.asked] == ["deadbeef"]
    assert run.read_manifest()["ended_s"] == 5.0
    assert not is_used(run.path.parent)


def test_down_keeps_the_time_at_which_a_run_ended(run):
    run.write_manifest(ended_s=5.0)

    end_run(run.path.parent)

    assert run.read_manifest()["ended_s"] == 5.0


def test_a_run_that_cannot_be_ended_stops_no_other(run, tmp_path, capsys):
    stubborn = started(tmp_path, "stubborn")

    assert cli.main(["reap", "--runs", str(tmp_path)]) == 1

    said = capsys.readouterr().out
    assert "stubborn: cannot be ended: There is no 'scancel' on PATH." in said
    assert "ended_s" in run.read_manifest()
    assert "ended_s" not in stubborn.read_manifest()


def test_a_cluster_that_this_version_cannot_read_is_told(tmp_path, run):
    run.write_manifest(cluster={"name": "site", "of_an_old_version": 1})

    with pytest.raises(ProvisionError, match="none that this version can read"):
        end_run(run.path.parent)


WRONG = (
    {"harness": None},
    {"harness": {"pid": "abc", "start_time": [1], "boot_id": 2, "host": {}}},
    {"keeper": "x"},
    {"lease_ttl_s": None},
    {"lease_ttl_s": 1e400},
    {"kept_until_s": "soon"},
    {"ended_s": []},
    {"run_id": {}},
    {"cluster": []},
)


@pytest.mark.parametrize("wrong", WRONG, ids=str)
@pytest.mark.parametrize("is_here", [True, False], ids=["here", "elsewhere"])
def test_a_manifest_of_another_shape_costs_only_its_own_run(
    run, tmp_path, monkeypatch, capsys, wrong, is_here
):
    monkeypatch.setattr(module, "LEASE_LOOK_S", 0.01)
    run.write_manifest(lease_ttl_s=0.05)
    if not is_here:
        on_login_1(run)
        write_lease(str(run.lease), "x")
    run.write_manifest(**wrong)
    (run.state / "toy.started.json").write_text('{"started_s": null, "pid": "x"}')
    (run.state / "two.started.json").write_text('{"started_s": 1, "pid": 1.5}')
    other = started(tmp_path, "cafecafe")

    cli.main(["reap", "--runs", str(tmp_path)])

    assert ("site", "cafecafe", 1.0) in Elsewhere.asked
    assert "cafecafe: ended" in capsys.readouterr().out
    assert list(left_overs(tmp_path)) == []
    assert cli.main(["prune", "--runs", str(tmp_path), "--keep", "0"]) == 0
    assert not other.path.exists()


@pytest.mark.parametrize("backend", [None, ["local"]])
def test_a_backend_of_no_name_is_told_with_its_run(run, monkeypatch, backend):
    monkeypatch.setattr(module, "BACKENDS", BACKENDS)
    run.write_manifest(backend=backend)

    (found,) = reap([run.path.parent])

    assert str(backend) in found.trouble
