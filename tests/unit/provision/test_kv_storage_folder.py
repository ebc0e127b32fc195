"""KV of earlier runs is removed, and nothing else."""

import errno
import fcntl
from pathlib import Path

import pytest

from pytest_pd.errors import ProvisionError
from pytest_pd.provision import kv_store
from pytest_pd.provision.kv_store import IN_USE, StoreLock
from pytest_pd.provision.lease import held
from tests.kit import wait_until

HASH = "0047158485dc027ea7f1401142ee658a"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A storage with one cached prompt and things of somebody else."""
    path = tmp_path / "pd_kv"
    (path / HASH).mkdir(parents=True)
    (path / HASH / "model.layers.0.self_attn.attn.safetensors").write_bytes(b"kv")
    (path / "README").write_text("mine")
    (path / "models").mkdir()
    (path / HASH[::-1]).mkdir()
    (path / HASH[::-1] / "thesis.tex").write_text("mine too")
    return path


def test_only_cached_prompts_are_removed(store):
    assert kv_store.clear(store) == 1

    left = sorted(entry.name for entry in store.iterdir())
    assert left == sorted(["README", "models", HASH[::-1]])


def test_links_are_not_followed(store, tmp_path):
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / "a.safetensors").write_bytes(b"weights")
    (store / ("f" * 32)).symlink_to(target)

    kv_store.clear(store)

    assert (target / "a.safetensors").exists()


@pytest.mark.parametrize("path", ["/", "/mnt", "relative/kv", "/tmp/..", "/home/x"])
def test_folders_that_hold_more_than_kv_are_refused(path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/x")

    with pytest.raises(ProvisionError, match="no folder that may be cleared"):
        kv_store.clear(Path(path))


def test_storage_is_written_and_read(store):
    finding = kv_store.look(store)

    assert finding.ok
    assert "1 prompts of earlier" in finding.said
    assert not list(store.glob(".pytest-pd-*"))


def test_looking_makes_nothing(tmp_path):
    finding = kv_store.look(tmp_path / "a" / "kv")

    assert finding.ok
    assert "does not exist yet" in finding.said
    assert not (tmp_path / "a").exists()


def test_storage_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "kv").write_text("a file, not a folder")

    finding = kv_store.look(tmp_path / "kv")

    assert finding.ok is False
    assert "kv_transfer.path" in finding.hint


def test_a_folder_is_had_alone_once_nobody_uses_it(store):
    first, second = StoreLock(store), StoreLock(store)
    first.share()
    assert second.taken() == IN_USE
    second.share()
    first.close()

    assert second.taken() == ""


def test_a_folder_that_comes_later_is_in_use_from_then_on(tmp_path):
    first = StoreLock(tmp_path / "a" / "kv")
    assert first.taken() == ""
    (tmp_path / "a" / "kv").mkdir(parents=True)
    first.share()

    assert StoreLock(tmp_path / "a" / "kv").taken() == IN_USE


def test_what_is_kept_uses_its_folder_until_its_lease_is_over(store, tmp_path):
    lock = StoreLock(store)
    lock.share()
    with held(tmp_path / "lease", 5.0, lock.fds) as lease:
        lease.keep(1.0)
    lock.close()

    assert StoreLock(store).taken() == IN_USE
    wait_until(lambda: StoreLock(store).taken() == "", "the end of the lease")


def test_a_file_system_without_locks_is_told(store, monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)

    assert StoreLock(store).taken() == "it cannot be locked: No locks available"


def test_no_lock_is_put_into_a_folder_that_may_not_be_cleared():
    with pytest.raises(ProvisionError, match="no folder that may be cleared"):
        StoreLock(Path("/mnt"))

    assert not Path("/mnt", kv_store.LOCK).exists()
