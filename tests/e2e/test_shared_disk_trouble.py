"""A shared file system that stalls or is full ends no deployment that is well."""

import os
import shutil
import subprocess
import time
from contextlib import contextmanager

import pytest

from pytest_pd.provision.identity import marked_with
from tests.e2e.slurm_kit import cluster, running_slurm, session
from tests.kit import wait_until
from tests.services import require

STALL_S = float(os.environ.get("PD_STALL_S", "6"))
"""30 s is the bar; tried with PD_STALL_S=30, and shorter here."""
TTL_S = 2 * STALL_S
TOOLS = ("mkfs.ext4", "mount", "fsfreeze")


def order(*words):
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def mounted(tmp_path_factory):
    """Mount a small file system before Slurm starts, whose nodes see older mounts."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    absent = [tool for tool in TOOLS if shutil.which(tool, path=path) is None]
    if absent or os.geteuid() != 0:
        yield None
        return
    root = tmp_path_factory.mktemp("disk")
    image, place = root / "image", root / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    order("/usr/sbin/mkfs.ext4", "-q", "-F", str(image))
    if subprocess.run(["mount", "-o", "loop", image, place], check=False).returncode:
        yield None
        return
    try:
        yield place
    finally:
        order("umount", "--lazy", str(place))


@pytest.fixture(scope="module")
def site(tmp_path_factory, mounted):
    with running_slurm(tmp_path_factory.mktemp("slurm"), 4) as made:
        yield made


@pytest.fixture
def disk(mounted, tmp_path):
    """A folder on a file system of its own, which can be frozen and filled."""
    if mounted is None:
        require("loop-mount", f"root and {', '.join(TOOLS)} have to mount a disk")
    folder = mounted / tmp_path.name
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@contextmanager
def frozen(disk):
    """Let every write wait, as on a server that does not answer."""
    order("/usr/sbin/fsfreeze", "--freeze", str(disk))
    try:
        yield
    finally:
        order("/usr/sbin/fsfreeze", "--unfreeze", str(disk))


def fill(disk):
    """Write until nothing more goes in."""
    with (disk / "fill").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))


def lives_on(here, process, seconds):
    """Look for so long whether service and job are there."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        assert process.exit_code() is None
        assert here.site.jobs_of(here.run_id)
        time.sleep(0.5)


def test_a_disk_that_stalls_ends_nothing(site, disk):
    with session(site, disk, cluster(TTL_S)) as here:
        process = here.start()
        with frozen(disk):
            lives_on(here, process, STALL_S)

        lives_on(here, process, TTL_S / 2)
    assert list(marked_with(f"{here.run_id}/")) == []


def test_a_full_disk_ends_nothing(site, disk):
    with session(site, disk, cluster(4.0)) as here:
        process = here.start()
        with pytest.raises(OSError, match="No space"):
            fill(disk)
        assert shutil.disk_usage(disk).free < 1 << 16

        lives_on(here, process, 8.0)


def test_a_lease_that_cannot_be_read_for_a_while_ends_nothing(site, tmp_path):
    with session(site, tmp_path, cluster(10.0)) as here:
        process = here.start()
        lease = here.run.lease
        lease.rename(lease.with_suffix(".away"))
        lease.mkdir()
        with pytest.raises(IsADirectoryError):
            lease.read_bytes()
        lives_on(here, process, 5.0)

        lease.rmdir()
        lives_on(here, process, 6.0)


def test_a_lease_that_stays_away_ends_the_job(site, tmp_path):
    with session(site, tmp_path, cluster(2.0)) as here:
        here.start()
        lease = here.run.lease
        lease.unlink()
        lease.mkdir()

        wait_until(lambda: not site.jobs_of(here.run_id), "the end", deadline_s=30)
        lease.rmdir()
