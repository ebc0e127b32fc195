"""How live progress is shown: one line rewritten on a terminal, plain lines else."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

PLAIN_EVERY_S = 10.0
LIVE_EVERY_S = 0.1
ERASE = "\r\x1b[2K"


class ProgressLine:
    """Shows the latest line. On a terminal it takes no room in the end.

    Elsewhere a line is written at once when what comes before the seconds
    changes, and every ten seconds while it does not.
    """

    def __init__(
        self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._live = stream.isatty()
        self._shown_s = float("-inf")
        self._head = ""

    def __call__(self, line: str, /) -> None:
        now_s = self._clock()
        head = line.partition(";")[0]
        every_s = LIVE_EVERY_S if self._live else PLAIN_EVERY_S
        if head == self._head and now_s - self._shown_s < every_s:
            return
        self._head, self._shown_s = head, now_s
        self._write(line)

    def _write(self, line: str) -> None:
        if self._live:
            width = shutil.get_terminal_size().columns
            self._stream.write(ERASE + line[: width - 1])
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Remove the line from the terminal."""
        if self._live and self._head:
            self._stream.write(ERASE)
            self._stream.flush()


class Shown(logging.Handler):
    """Shows what a backend logs while it waits, as progress."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        self._show(record.getMessage())


@contextmanager
def waiting_shown(show: Callable[[str], None]) -> Iterator[None]:
    """Show what a backend tells of its queue: reason, place, expected start."""
    logger, handler = logging.getLogger(__package__), Shown(show)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
