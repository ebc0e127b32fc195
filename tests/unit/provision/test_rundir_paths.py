"""Paths of a run, its manifest, finding it again, removing what is old."""

from __future__ import annotations

import errno
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pytest_pd.cli import main
from pytest_pd.errors import ProvisionError
from pytest_pd.provision.rundir import (
    RunDir,
    find_run,
    find_runs,
    forget,
    id_of,
    make_run_id,
    prune,
    remember,
    run_path,
    runs_below,
    user_dir,
)


@pytest.fixture(autouse=True)
def own_user_dir(tmp_path, monkeypatch):
    (tmp_path / "runtime").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))


def make(root, run_id, *topologies):
    for name in topologies or ("toy",):
        folder = RunDir(root / f"20260101T000000Z-{run_id}" / name)
        folder.create()
        folder.write_manifest(run_id=run_id, topology=name)
    return root / f"20260101T000000Z-{run_id}"


def test_run_ids_differ_and_are_plain():
    made = {make_run_id() for _ in range(100)}

    assert len(made) == 100
    assert all(name.isalnum() and name.islower() for name in map(str, made) if name)


def test_the_path_of_a_run_sorts_by_time():
    now = datetime(2026, 11, 21, 9, 5, 3, tzinfo=UTC)

    assert run_path(Path("runs"), "abc", now) == Path("runs/20261121T090503Z-abc")


def test_naming_a_run_makes_nothing(tmp_path):
    run_path(tmp_path / "runs", "abc")

    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere; run as user")
def test_a_folder_without_permission_is_one_clear_error(tmp_path):
    tmp_path.chmod(0o500)

    with pytest.raises(ProvisionError, match="cannot be written"):
        RunDir(tmp_path / "run" / "toy").create()


@pytest.mark.parametrize("where", ["file/toy", "/proc/1/toy"])
def test_a_folder_that_cannot_be_is_one_clear_error(tmp_path, where):
    (tmp_path / "file").write_text("")

    with pytest.raises(ProvisionError, match="cannot be written") as caught:
        RunDir(tmp_path / where).create()

    assert "--run-dir" in caught.value.hint


def test_the_manifest_grows_by_facts(tmp_path):
    run = RunDir(tmp_path)
    run.create()
    run.write_manifest(a=1)
    run.write_manifest(b=2)

    assert run.read_manifest() == {"a": 1, "b": 2}


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_a_manifest_that_is_none_is_empty(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)

    assert RunDir(tmp_path).read_manifest() == {}


def test_a_run_is_found_by_the_beginning_of_its_id(tmp_path):
    made = make(tmp_path, "abcd2345")
    make(tmp_path, "xyz")

    assert find_run("abcd", root=tmp_path) == made.resolve()
    assert id_of(made) == "abcd2345"


def test_an_unknown_run_lists_the_known_ones(tmp_path):
    make(tmp_path, "abcd2345")

    with pytest.raises(ProvisionError, match="no run") as caught:
        find_run("q", root=tmp_path)

    assert "abcd2345" in caught.value.hint


def test_an_ambiguous_beginning_is_refused(tmp_path):
    make(tmp_path, "abc1")
    make(tmp_path, "abc2")

    with pytest.raises(ProvisionError, match="2 runs"):
        find_run("abc", root=tmp_path)


def test_a_run_in_a_folder_of_its_own_is_found_by_its_id(tmp_path):
    made = make(tmp_path / "elsewhere", "abcd")
    remember("abcd", made)

    assert find_run("abcd", root=tmp_path / "runs") == made.resolve()
    forget("abcd")
    assert find_runs(root=tmp_path / "runs") == []


def test_pruning_keeps_the_newest(tmp_path):
    made = []
    for number, name in enumerate("abc"):
        run = make(tmp_path, name)
        os.utime(run, (number, number))
        made.append(run)

    removed = prune(runs_below(tmp_path), keep=1)

    assert removed == {path.resolve(): "" for path in made[:2]}
    assert [path.exists() for path in made] == [False, False, True]


def test_pruning_tells_what_stays(tmp_path, monkeypatch, capsys):
    for name in "abc":
        make(tmp_path, name)
    remove = shutil.rmtree

    def refuse_b(path, *, ignore_errors=False):
        if path.name.endswith("-b"):
            if ignore_errors:
                return
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        remove(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", refuse_b)

    assert main(["prune", "--runs", str(tmp_path), "--keep", "0"]) == 1

    told = capsys.readouterr().out
    (left,) = tmp_path.glob("*Z-*")
    assert f"not removed {left.name}: {left}: Permission denied\n" in told
    assert told.endswith("2 of 3 unused run(s) removed\n")


def test_one_file_that_cannot_be_removed_keeps_no_other(tmp_path, monkeypatch):
    run = make(tmp_path, "a")
    for name in ("first", "held", "last"):
        (run / name).mkdir()
        (run / name / "log").touch()
    unlink = os.unlink

    def refuse_held(name, **options):
        held = options.get("dir_fd") and os.path.samestat(
            os.fstat(options["dir_fd"]), (run / "held").stat()
        )
        if held:
            raise PermissionError(errno.EACCES, "Permission denied", name)
        unlink(name, **options)

    monkeypatch.setattr(os, "unlink", refuse_held)

    (why,) = prune([run], keep=0).values()

    assert "Permission denied" in why
    assert [path.name for path in run.rglob("*")] == ["held", "log"]


def test_runs_without_a_topology_are_pruned_once_they_are_over(tmp_path):
    over, other, begun = (tmp_path / f"2026Z-{name}" for name in ("a", "b", "c"))
    for folder in (over, other, begun):
        (folder / "no-topology").mkdir(parents=True)
        (folder / "no-topology/entries.jsonl").touch()
    (over / "verdict.json").write_text('{"run_id": "a"}')
    (other / "verdict.json").write_text('{"run_id": "of another"}')

    assert main(["prune", "--runs", str(tmp_path), "--keep", "0"]) == 0

    assert sorted(tmp_path.glob("2026Z-*")) == [other, begun]


def test_an_entry_that_is_no_path_costs_no_other(tmp_path):
    made = make(tmp_path / "elsewhere", "abcd")
    remember("abcd", made)
    index = user_dir() / "runs"
    (index / "bytes").write_bytes(b"\xff\xfe")
    (index / "empty").write_text("")
    (index / "folder").mkdir()

    assert find_runs(root=tmp_path / "runs") == [made.resolve()]


@pytest.mark.parametrize("run_id", ["../../precious", "", None, ["x"], "\ud800"])
def test_an_id_that_is_no_name_is_none(tmp_path, run_id):
    made = make(tmp_path, "abcd")
    RunDir(made / "toy").write_manifest(run_id=run_id)

    assert id_of(made) == "abcd"


def test_folders_that_are_no_runs_are_left_alone(tmp_path):
    (tmp_path / "20260101T000000Z-mine").mkdir()

    assert runs_below(tmp_path) == []


def test_a_link_to_a_run_elsewhere_is_not_pruned(tmp_path):
    archived = make(tmp_path / "archive", "abc")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "old").symlink_to(archived)

    assert runs_below(tmp_path / "runs") == []
    assert archived.is_dir()


def test_runs_may_lie_behind_a_link(tmp_path):
    made = make(tmp_path / "disk", "abc")
    (tmp_path / "runs").symlink_to(tmp_path / "disk")

    assert runs_below(tmp_path / "runs") == [made.resolve()]


def test_the_folder_of_the_user_is_his_alone(tmp_path):
    assert user_dir().stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_the_folder_of_somebody_else_is_refused(tmp_path):
    theirs = tmp_path / "runtime" / "pytest-pd-0"
    theirs.mkdir()
    os.chown(theirs, 12345, 12345)

    with pytest.raises(ProvisionError, match="belongs to user 12345"):
        user_dir()
