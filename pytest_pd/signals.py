"""SIGTERM and SIGHUP count as Ctrl-C: take down, then report."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

POLITE = ("SIGTERM", "SIGHUP")

Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise what Ctrl-C raises."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def install() -> Callable[[], None]:
    """Handle the signals from now on; return a function that undoes it.

    One that is ignored (``nohup``) stays ignored. Outside of the main thread
    nothing can be installed, and nothing is.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    before: dict[int, Handler] = {}
    for name in POLITE:
        number = getattr(signal, name)
        if signal.getsignal(number) == signal.SIG_DFL:
            before[number] = signal.signal(number, interrupt)

    def undo() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    return undo
