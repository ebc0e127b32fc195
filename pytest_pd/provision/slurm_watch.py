"""One poller for all jobs of a process: asks rarely, and never guesses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from pytest_pd.provision.slurm_text import JobView

FIRST_S = 0.1
GROWTH = 1.6
WAITING_MOST_S = 10.0
RUNNING_MOST_S = 30.0


class Queue(Protocol):
    """Who can be asked about jobs."""

    def queue(self, jobs: Sequence[str]) -> dict[str, JobView] | None: ...


class JobWatch:
    """What is known about our jobs; asked of Slurm when the answer is due.

    One query serves all jobs. The interval grows from 0.1 s to 10 s while a job
    waits and to 30 s while all run, and starts again when something changes. A
    query that fails changes nothing: the last answer stays.
    """

    def __init__(
        self, queue: Queue, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._queue = queue
        self._clock = clock
        self._views: dict[str, JobView] = {}
        self._interval_s = FIRST_S
        self._due_s = 0.0
        self._told_s = 0.0
        self._lock = threading.Lock()
        self.failures = 0

    def add(self, job: str) -> None:
        """Watch one more job."""
        with self._lock:
            self._views[job] = JobView(job, "PENDING")
            self._restart()

    def drop(self, job: str) -> None:
        """Stop watching a job."""
        with self._lock:
            self._views.pop(job, None)

    def view(self, job: str, *, now: bool = False) -> JobView:
        """Return the last known view; asks first if due, or when told `now`."""
        with self._lock:
            if now or self._clock() >= self._due_s:
                self._ask()
            return self._views[job]

    def seconds_left(self, job: str) -> float | None:
        """Return the seconds to the job's time limit, by the last answer."""
        left_s = self.view(job).left_s
        return None if left_s is None else left_s - (self._clock() - self._told_s)

    def due_in_s(self) -> float:
        """Return the seconds until the next query."""
        return max(0.0, self._due_s - self._clock())

    def _restart(self) -> None:
        self._interval_s = FIRST_S
        self._due_s = self._clock() + FIRST_S

    def _ask(self) -> None:
        wanted = [job for job, view in self._views.items() if not view.over]
        answer = self._queue.queue(wanted) if wanted else {}
        if answer is None:
            self.failures += 1
            self._later()
            return
        self.failures = 0
        self._told_s = self._clock()
        changed = any(answer[job].state != self._views[job].state for job in answer)
        self._views.update(answer)
        if changed:
            self._restart()
        else:
            self._later()

    def _later(self) -> None:
        running = all(view.state == "RUNNING" for view in self._views.values())
        most_s = RUNNING_MOST_S if running else WAITING_MOST_S
        self._interval_s = min(self._interval_s * GROWTH, most_s)
        self._due_s = self._clock() + self._interval_s
