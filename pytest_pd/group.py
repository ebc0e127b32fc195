"""The end of a process that leads a session of its own, and of all that it started."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from typing import Any


def end_group(process: subprocess.Popen[Any], *, grace_s: float = 0.0) -> None:
    """End a process begun with ``start_new_session`` and what is left of its group.

    Args:
        grace_s: From SIGTERM to SIGKILL, and from there to giving up waiting; 0 kills
            at once and waits until the process is gone.
    """
    for number in (signal.SIGTERM, signal.SIGKILL) if grace_s else (signal.SIGKILL,):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace_s or None)
