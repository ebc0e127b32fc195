"""The folder that prefill writes KV into and decode reads it from, on this host."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pytest_pd.errors import ProvisionError
from pytest_pd.provision.base import Finding
from pytest_pd.user import expand

PROMPT_FOLDER = re.compile(r"[0-9a-f]{32}([0-9a-f]{32})?")
"""vLLM's connector keeps each prompt in a folder named by the hash of its tokens."""

LEAST_DEPTH = 2
LOCK = ".pytest-pd.lock"
IN_USE = "another run uses it"


def look(path: Path) -> Finding:
    """Write a file below `path` as prefill does, and read it back as decode does."""
    what = "KV storage"
    if not path.exists():
        above = next(place for place in path.parents if place.exists())
        return Finding(
            what,
            os.access(above, os.W_OK),
            f"{path} does not exist yet, below {above}",
            f"mkdir -p {path}, writable for this user, on every node",
        )
    try:
        probe = path / f".pytest-pd-{secrets.token_hex(8)}"
        said = secrets.token_bytes(16)
        probe.write_bytes(said)
        back = probe.read_bytes()
        probe.unlink()
    except OSError as error:
        return Finding(
            what,
            False,
            f"{path}: {error.strerror}",
            "create it and let this user write there, or correct kv_transfer.path",
        )
    if back != said:
        return Finding(what, False, f"{path} gives back other bytes", "check the mount")
    old = sum(1 for _ in prompts_in(path))
    return Finding(what, True, f"{path} is written and read; {old} prompts of earlier")


def prompts_in(path: Path) -> Iterator[Path]:
    """Yield the folders of cached prompts directly below `path`, nothing else."""
    if not path.is_dir():
        return
    for entry in sorted(path.iterdir()):
        named = PROMPT_FOLDER.fullmatch(entry.name) is not None
        if named and entry.is_dir() and not entry.is_symlink() and _is_cache(entry):
            yield entry


def _is_cache(folder: Path) -> bool:
    return all(
        file.suffix == ".safetensors" and file.is_file() and not file.is_symlink()
        for file in folder.iterdir()
    )


class StoreLock:
    """The lock of a KV folder: shared while it is used, alone to clear it.

    It lies in the folder, so runs of other hosts and users that share it see it.

    Attributes:
        path: The folder; None where no KV outlives its run.
        fds: Its open file; whatever inherits it keeps the folder in use.

    Raises:
        ProvisionError: it is a folder that may not be cleared.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.fds: tuple[int, ...] = ()
        self._open()

    def _open(self) -> None:
        """Open the file; where that is impossible nothing can be removed either."""
        if self.path is None or not self.path.is_dir():
            return
        refuse_dangerous(self.path)
        for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):
            with suppress(OSError):
                self.fds = (os.open(self.path / LOCK, flags | os.O_CLOEXEC, 0o666),)
                return

    def taken(self) -> str:
        """Have the folder alone; returns why that is impossible, or nothing."""
        for fd in self.fds:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return IN_USE
            except OSError as error:
                return f"it cannot be locked: {error.strerror}"
        return ""

    def share(self) -> None:
        """Use the folder beside others, from when there is one."""
        if not self.fds:
            self._open()
        for fd in self.fds:
            with suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_SH)

    def clear(self) -> int:
        """Remove the cached prompts of earlier runs; return how many there were.

        Raises:
            ProvisionError: one cannot be removed.
        """
        return clear(self.path) if self.path and self.path.exists() else 0

    def close(self) -> None:
        """Use it no longer."""
        for fd in self.fds:
            os.close(fd)
        self.fds = ()


def clear(path: Path) -> int:
    """Remove the cached prompts of earlier runs; return how many there were.

    A hit on them would look like a hand-over. Only folders that look like the
    connector's own are removed; everything else stays.

    Raises:
        ProvisionError: the path is the root, a home, a system folder or too near
            to one, or a cached prompt cannot be removed.
    """
    refuse_dangerous(path)
    found = list(prompts_in(path))
    for folder in found:
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise ProvisionError(
                f"The KV of an earlier run in {str(folder)!r} cannot be removed: "
                f"{error.strerror}.",
                hint="remove it as its owner: decode would take it for a hand-over",
                where=path,
            ) from error
    return len(found)


def refuse_dangerous(path: Path) -> None:
    """Raise `ProvisionError` unless `path` lies well below the root and all homes."""
    real = Path(os.path.realpath(path))
    shallow = not path.is_absolute() or len(real.parts) - 1 < LEAST_DEPTH
    home = expand("~")
    if shallow or real == home or real in home.parents:
        raise ProvisionError(
            f"kv_transfer.path {str(path)!r} is no folder that may be cleared before "
            "a run.",
            hint="name a folder of its own, for example /mnt/pd_kv",
        )
