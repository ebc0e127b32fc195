"""Time: one monotonic axis for every stamp, and a timer that fires on it."""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import dataclass

NS = 1_000_000_000
_CLOCK_MONOTONIC = 1
_TFD_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1
STEP_LIMIT_NS = 100_000
"""A jump of realtime against monotonic by more than this is a clock step."""


class _Itimerspec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class AbsoluteTimer:
    """A timerfd on CLOCK_MONOTONIC: no rounding to milliseconds, never early.

    Args:
        libc: The C library; given by tests.

    Raises:
        OSError: the kernel has no timerfd.
    """

    def __init__(self, libc: ctypes.CDLL | None = None) -> None:
        self._libc = libc or ctypes.CDLL(None, use_errno=True)
        self.fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_FLAGS)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._spec = _Itimerspec(0, 0, 0, 0)
        self._spec_ref = ctypes.byref(self._spec)

    def set(self, due_ns: int) -> None:
        """Become readable at `due_ns` of the monotonic clock, at once if past."""
        due_ns = max(due_ns, 1)  # zero would disarm the timer
        self._spec.value_s, self._spec.value_ns = divmod(due_ns, NS)
        flags = _TFD_TIMER_ABSTIME
        if self._libc.timerfd_settime(self.fd, flags, self._spec_ref, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def clear(self) -> None:
        """Take the expiry away, so that the descriptor is quiet again."""
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            return

    def close(self) -> None:
        os.close(self.fd)


def sample_offset_ns(pairs: int = 9) -> int:
    """Return realtime minus monotonic in ns, from the tightest of `pairs` samples.

    A sample reads monotonic, realtime, monotonic; the one with the least time
    between its outer reads was disturbed least, and its error is at most half
    of that time.
    """
    best_width, best_offset = NS, 0
    for _ in range(pairs):
        before = time.monotonic_ns()
        real = time.time_ns()
        after = time.monotonic_ns()
        if after - before < best_width:
            best_width = after - before
            best_offset = real - (before + after) // 2
    return best_offset


@dataclass(slots=True)
class OffsetTracker:
    """Realtime minus monotonic, kept fresh so that an NTP step is seen."""

    offset_ns: int
    steps: int = 0

    @classmethod
    def start(cls) -> OffsetTracker:
        return cls(sample_offset_ns())

    def refresh(self) -> None:
        """Sample again; count a step when realtime was set meanwhile."""
        fresh = sample_offset_ns()
        if abs(fresh - self.offset_ns) > STEP_LIMIT_NS:
            fresh = sample_offset_ns(99)  # a preempted sample is not a step
            self.steps += abs(fresh - self.offset_ns) > STEP_LIMIT_NS
        self.offset_ns = fresh
