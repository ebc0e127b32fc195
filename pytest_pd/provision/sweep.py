"""Kill what a killed launcher left: ``python3 -S -E - MARK < sweep.py``.

A program of its own for a machine that may have another Python (3.6 and later), and
perhaps no folder of the run any more. MARK is that of one service, or, with ``/`` at
its end, the beginning of those of a deployment; a process carries it in its
environment, as PYTEST_PD_SERVICE. It ends with code 1, and prints the pids, when some
live on although they were killed.
"""
# ruff: noqa: PTH123, PTH208

import contextlib
import os
import signal
import sys
import time

NAME = b"PYTEST_PD_SERVICE="
KILLED_S = 5.0
LOOK_S = 0.02


def carries(pid: int, mark: bytes) -> bool:
    """Tell whether a process of this user carries a mark; a zombie has none."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            mine = os.fstat(file.fileno()).st_uid == os.getuid()
            words = file.read().split(b"\0") if mine else []
    except OSError:
        return False
    marks = [word[len(NAME) :] for word in words if word.startswith(NAME)]
    return any(m == mark or (mark[-1:] == b"/" and m.startswith(mark)) for m in marks)


def marked_with(mark: bytes) -> "list[int]":
    """Return every process of this user that carries a mark, except this one."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if pid != os.getpid() and carries(pid, mark)]


def main() -> int:
    """Kill until nothing is left."""
    mark = os.fsencode(sys.argv[1])
    end_s = time.monotonic() + KILLED_S
    while True:
        left = marked_with(mark)
        if not left or time.monotonic() > end_s:
            break
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(LOOK_S)
    print(*left)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
