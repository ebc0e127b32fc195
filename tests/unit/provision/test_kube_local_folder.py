"""Folders of control planes hold Secrets: they are closed, and go with their owner."""

import json
import os
import subprocess
import tempfile

import pytest

from pytest_pd.provision.identity import Identity
from pytest_pd.provision.kube_local.folder import OWNER, PREFIX, plane_folder


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("boot_id", "stays"), [("", True), ("another", False)])
def test_a_plane_of_another_container_of_this_host_is_left_alone(root, boot_id, stays):
    """Nobody sees from here whether it lives; after a boot it cannot."""
    record = Identity.of(os.getpid()).record() | {"pid_ns": "another"}
    other = folder_of(root, "other", record | ({"boot_id": boot_id} if boot_id else {}))

    with plane_folder():
        assert other.exists() is stays


def folder_of(root, name, owner):
    folder = root / f"{PREFIX}{name}"
    (folder / "etcd").mkdir(parents=True)
    (folder / OWNER).write_text(json.dumps(owner))
    return folder


def test_a_folder_is_closed_to_others_and_goes_with_the_plane(root):
    with plane_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700

    assert list(root.iterdir()) == []


def test_the_next_plane_removes_folders_of_killed_ones_and_no_other(root):
    with subprocess.Popen(["sleep", "60"]) as owner:
        dead = folder_of(root, "dead", Identity.of(owner.pid).record())
        owner.kill()
    living = folder_of(root, "living", Identity.of(os.getpid()).record())
    far = folder_of(root, "far", {"pid": 1, "start_time": 1, "host": "elsewhere"})
    link = root / f"{PREFIX}link"
    link.symlink_to(folder_of(root / "outside", "x", {}))
    (link / OWNER).write_text(
        (far / OWNER).read_text().replace("elsewhere", os.uname().nodename)
    )

    with plane_folder():
        assert not dead.exists()
        assert living.exists()
        assert far.exists()
        assert (link / OWNER).exists()
