"""Where a control plane of this machine lies: for its owner alone, for its life."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_pd.provision.identity import Identity
from pytest_pd.provision.launcher import place, write_json

PREFIX = "pytest-pd-kube-"
OWNER = "plane.json"


@contextmanager
def plane_folder() -> Iterator[Path]:
    """Yield a folder that nobody else can look into; it goes when the block ends.

    Folders of planes whose harness was killed are removed first: they hold Secrets.
    """
    for dead in dead_folders(Path(tempfile.gettempdir())):
        shutil.rmtree(dead, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as name:
        write_json(str(Path(name) / OWNER), Identity.of(os.getpid()).record())
        yield Path(name)


def dead_folders(root: Path) -> Iterator[Path]:
    """Yield our own folders below `root` whose owner, of this host, lives no more."""
    here = place()
    for owner in root.glob(f"{PREFIX}*/{OWNER}"):
        folder = owner.parent
        try:
            is_mine = folder.lstat().st_uid == os.getuid() and not folder.is_symlink()
            found = Identity.read(json.loads(owner.read_text()))
        except (OSError, ValueError, AttributeError):
            continue
        is_old = found.boot_id != here["boot_id"]  # of another container it is not told
        is_dead = is_old or (found.is_here and not found.is_alive)
        if is_mine and found.host == here["host"] and is_dead:
            yield folder
