"""What the client's own host did while it measured."""

from __future__ import annotations

import gc
import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pytest_pd.errors import SpecError

SCHEDULING = ("auto", "normal")


@dataclass(frozen=True, slots=True)
class HostSample:
    """Counters of this thread and host at one moment, in seconds."""

    wall_s: float
    cpu_s: float
    run_queue_s: float
    steal_s: float
    collections: int

    @classmethod
    def take(cls) -> HostSample:
        return cls(
            wall_s=time.monotonic(),
            cpu_s=time.thread_time(),
            run_queue_s=_run_queue_s(),
            steal_s=_steal_s(),
            collections=sum(s["collections"] for s in gc.get_stats()),
        )


@dataclass(frozen=True, slots=True)
class HostShare:
    """What one load process used, and waited for, between two samples.

    Attributes:
        wall_s: Time between the samples.
        cpu_s: CPU time of the loop.
        cpu_share: `cpu_s` over `wall_s`.
        run_queue_s: Time for which the loop could run and did not.
        steal_s: Time the hypervisor took from the whole host.
        collections: Garbage collections, 0 unless something went wrong.
        load_average: One-minute load average of the host at the end.
        cores: Cores this process may use.
        peak_rss_bytes: Of the whole process.
    """

    wall_s: float
    cpu_s: float
    cpu_share: float
    run_queue_s: float
    steal_s: float
    collections: int
    load_average: float
    cores: int
    peak_rss_bytes: int

    @classmethod
    def between(cls, before: HostSample, after: HostSample) -> HostShare:
        wall_s = after.wall_s - before.wall_s
        cpu_s = after.cpu_s - before.cpu_s
        return cls(
            wall_s=wall_s,
            cpu_s=cpu_s,
            cpu_share=cpu_s / wall_s if wall_s else 0.0,
            run_queue_s=after.run_queue_s - before.run_queue_s,
            steal_s=after.steal_s - before.steal_s,
            collections=after.collections - before.collections,
            load_average=os.getloadavg()[0],
            cores=len(os.sched_getaffinity(0)),
            peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )


def _run_queue_s() -> float:
    """Second field of schedstat: ns spent runnable on a run queue."""
    path = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
    try:
        return int(path.read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def _steal_s() -> float:
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
        return int(fields[8]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0


@contextmanager
def quiet_collector() -> Iterator[None]:
    """Freeze what exists and collect nothing until the block is left."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
        gc.unfreeze()


@contextmanager
def many_files() -> Iterator[None]:
    """Allow this process as many open files as it may have: a stream needs one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS has a limit of its own below
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def prompt_scheduling(policy: str = "auto") -> Iterator[str]:
    """Run this thread before ordinary ones while in the block; yield how it runs.

    The loop needs a few per cent of a core, but at once: while it waits for one, the
    kernel merges segments and their stamps with them. ``auto`` takes the lowest
    real-time priority where the system allows it (root, or CAP_SYS_NICE) and yields
    ``fifo``; ``normal``, and ``auto`` where it is not allowed, change nothing and
    yield ``normal``. Processes started meanwhile are ordinary ones.

    Raises:
        SpecError: no policy is called so.
    """
    if policy not in SCHEDULING:
        raise SpecError.unknown("scheduling", policy, SCHEDULING)
    if policy == "normal" or not hasattr(os, "sched_setscheduler"):
        yield "normal"
        return
    before, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        fifo = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, fifo, os.sched_param(1))
    except OSError:
        yield "normal"
        return
    try:
        yield "fifo"
    finally:
        os.sched_setscheduler(0, before, parameter)
