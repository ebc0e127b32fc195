"""The end of a process that leads a session of its own, and of all that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from pytest_pd import tied


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


@contextmanager
def tied_group(words: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Yield a program in a session of its own; on exit all of its group is gone.

    So it is when we are killed: see `tied`. It is asked first, and has
    `tied.GRACE_S`. Its exit code for a signal is 256 less that signal.

    Args:
        options: Of `subprocess.Popen`, but for standard input, which is empty.
    """
    process = subprocess.Popen(
        [sys.executable, "-S", "-E", tied.__file__, *words],
        stdin=subprocess.PIPE,
        start_new_session=True,
        **options,
    )
    assert process.stdin is not None
    try:
        yield process
    finally:
        process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(2 * tied.GRACE_S)
        end_group(process)
        if process.stdout is not None:
            process.stdout.close()
