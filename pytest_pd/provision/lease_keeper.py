"""Renew a lease for as long as the harness lives, or until a deadline.

A program of its own, so that nothing which stops the harness for a while stops
the lease: a held GIL, ``--pdb``, Ctrl-Z. ``python3 -S -E lease_keeper.py LEASE
PERIOD_S PARENT_PID`` reads orders from standard input:

    keep SECONDS   go on after the harness has ended, until so many seconds are over
    (end of file)  the harness is gone: give the lease back, unless told to keep

The counter is written in place: a full disk does not stop what has its block
already. TERM gives the lease back at once.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

WIDTH = 20
LOOK_S = 0.2


def write_lease(path: str, text: str) -> None:
    """Write in place; the owner alone may read or write it.

    Raises:
        OSError: the folder is gone or may not be written.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(fd, text.ljust(WIDTH).encode() + b"\n", 0)
    finally:
        os.close(fd)


class Keeper:
    """Holds one lease."""

    def __init__(self, lease: str, period_s: float, parent: int) -> None:
        self.lease = lease
        self.period_s = period_s
        # Told, not asked: the parent may be gone before this line is reached.
        self.parent = parent
        self.until_s: float | None = None
        self.count = 0
        self.over = False

    def renew(self) -> None:
        """Count on; a failure is the reader's unknown, and is tried again."""
        self.count += 1
        with contextlib.suppress(OSError):
            write_lease(self.lease, str(self.count).zfill(WIDTH))

    def listen(self) -> None:
        """Take orders until the next look; the end of the pipe is the end of us."""
        if self.until_s is not None:
            time.sleep(LOOK_S)
        elif select.select([0], [], [], LOOK_S)[0]:
            text = os.read(0, 4096)
            if text.startswith(b"keep "):
                self.until_s = time.monotonic() + float(text.split()[1])
                with contextlib.suppress(OSError):
                    os.write(1, b"kept\n")
            self.over = self.over or not text

    def look(self) -> None:
        """A parent that is gone counts even if a fork of it still holds the pipe."""
        if self.until_s is None:
            self.over = self.over or os.getppid() != self.parent
        else:
            self.over = self.over or time.monotonic() >= self.until_s

    def stop(self, *_: object) -> None:
        self.over = True

    def run(self) -> None:
        """Renew until told otherwise; the last word in the lease is ``bye``."""
        renewed_s = time.monotonic()
        self.renew()
        while not self.over:
            self.listen()
            self.look()
            if time.monotonic() - renewed_s >= self.period_s:
                renewed_s = time.monotonic()
                self.renew()
        with contextlib.suppress(OSError):
            write_lease(self.lease, "bye")


def main() -> None:
    """Hold the lease that the command line names."""
    keeper = Keeper(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
    signal.signal(signal.SIGTERM, keeper.stop)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTSTP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    keeper.run()


if __name__ == "__main__":
    main()
