"""Is this process still the one we started? A pid alone does not say so."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from pytest_pd.errors import ProvisionError
from pytest_pd.provision.launcher import MARK, place, send, start_time

KILLED_S = 5.0
LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Identity:
    """One process of one boot of one machine.

    Attributes:
        start_time: Ticks since boot, from /proc; 0 proves nothing.
        pid_ns: Namespace in which it has this pid: containers may share boot and host
            name. Empty in records of earlier versions.
    """

    pid: int
    start_time: int
    boot_id: str
    host: str
    pid_ns: str = ""

    @classmethod
    def of(cls, pid: int) -> Identity:
        """Return the identity of a process that runs here now."""
        return cls(pid, start_time(pid) or 0, **place())

    @classmethod
    def read(cls, record: Mapping[str, object], prefix: str = "") -> Identity:
        """Return the identity that a state file or a manifest holds.

        What is no number there becomes 0, which proves nothing.
        """
        return cls(
            _whole(record.get(f"{prefix}pid")),
            _whole(record.get(f"{prefix}start_time")),
            str(record.get("boot_id", "")),
            str(record.get("host", "")),
            str(record.get("pid_ns", "")),
        )

    @property
    def is_here(self) -> bool:
        """Whether it was started here, among our pids, since the machine was booted."""
        here = place()
        same = self.boot_id == here["boot_id"] and self.host == here["host"]
        return same and self.pid_ns in ("", here["pid_ns"])

    @property
    def is_alive(self) -> bool:
        """Whether exactly this process still runs here."""
        return (
            self.pid > 0
            and self.start_time > 0
            and self.is_here
            and start_time(self.pid) == self.start_time
        )

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is of another machine, boot or container: unseen from here."""
        return self.pid > 0 and not self.is_here

    def record(self) -> dict[str, str | int]:
        """Return plain values for a file."""
        return {
            "pid": self.pid,
            "start_time": self.start_time,
            "boot_id": self.boot_id,
            "host": self.host,
            "pid_ns": self.pid_ns,
        }


def _whole(found: object) -> int:
    return found if isinstance(found, int) else 0


def marked_with(mark: str) -> Iterator[int]:
    """Yield our own processes of this mark; with ``/`` at its end, those below it.

    Other users' environments cannot be read, or are not ours to judge: they are
    left out, for root too.
    """
    wanted = f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                mine = entry.stat().st_uid == os.getuid()
                words = (entry / "environ").read_bytes() if mine else b""
            except OSError:
                continue
            named = [w for w in words.split(b"\0") if w.startswith(wanted)]
            marked = named if mark.endswith("/") else wanted in named
            if marked and start_time(int(entry.name)):
                yield int(entry.name)


def kill_all(whose: str, left: Callable[[], Set[int]]) -> None:
    """Kill processes until none is left.

    Args:
        left: Returns the pids of those that live, proven to be ours.

    Raises:
        ProvisionError: some live on for seconds.
    """
    end_s = time.monotonic() + KILLED_S
    while pids := sorted(left()):
        if time.monotonic() > end_s:
            named = ", ".join(f"pid {pid}" for pid in pids)
            raise ProvisionError(
                f"{len(pids)} process(es) of {whose!r} cannot be ended: {named}.",
                hint="they hang in the kernel (a dead GPU or file system); see dmesg",
            )
        send(pids, signal.SIGKILL)
        time.sleep(LOOK_S)
