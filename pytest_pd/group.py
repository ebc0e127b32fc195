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
    try:
        if grace_s:
            _end(process, signal.SIGTERM, grace_s)
    finally:
        # a second Ctrl-C cuts the wait short: nothing may live on for that
        _end(process, signal.SIGKILL, grace_s or None)


def _end(
    process: subprocess.Popen[Any], number: signal.Signals, wait_s: float | None
) -> None:
    """Signal the group and wait for its leader; None: until it is gone."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    with suppress(subprocess.TimeoutExpired):
        process.wait(wait_s)
