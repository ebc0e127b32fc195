"""Ports of this machine: who holds one, and a claim on one not yet bound.

Between the look and the moment a service binds its port (minutes, for weights)
another run of the same user would find it free. A claim is a locked file, which
the kernel releases however its holder ends.
"""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

from pytest_pd.provision.launcher import stat_fields
from pytest_pd.provision.rundir import user_dir

LISTEN = "0A"


def can_bind(address: str, port: int) -> bool:
    """Whether a service could listen there now; TIME_WAIT is no obstacle."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError:
            return False
    return True


class PortClaims:
    """Ports that this process has claimed for services it is about to start."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or user_dir() / "ports"
        self._stack = ExitStack()
        self._held: set[tuple[str, int]] = set()

    def claim(self, address: str, port: int) -> bool:
        """Claim a free port; False when it is bound or claimed by another."""
        if (address, port) in self._held:
            return can_bind(address, port)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{address}_{port}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        if not can_bind(address, port):
            os.close(fd)
            return False
        self._stack.callback(os.close, fd)
        self._held.add((address, port))
        return True

    def close(self) -> None:
        """Give every claim back."""
        self._stack.close()
        self._held.clear()


def holder_of(port: int) -> str:
    """Return ``pid 123 (python)`` for whoever listens on a port, if we may know."""
    inodes = _listening_inodes(port)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            for fd in (entry / "fd").iterdir():
                with suppress(OSError):
                    if str(fd.readlink()) in inodes:
                        return f"pid {entry.name} ({_name(entry)})"
    return "another process"


def _name(entry: Path) -> str:
    return (entry / "comm").read_text().strip() if stat_fields(int(entry.name)) else "?"


def _listening_inodes(port: int) -> set[str]:
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == LISTEN and int(words[1].rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{words[9]}]")
    return found
