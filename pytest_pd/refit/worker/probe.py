"""What the machine can do at best, and how far two ranks' clocks are apart."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
import torch.distributed as dist

from pytest_pd.refit.job import ClockSync

Clock = Callable[[], int]
"""Nanoseconds, monotonic."""

COPY_BYTES = 1 << 20
LOOPBACK_BYTES = 8 << 20


def memcpy_byte_s(clock: Clock, *, tries: int = 24) -> float:
    """Return the best rate of a copy in memory, in bytes per second.

    The block fits a second-level cache and the best try counts: the rate goes
    into a lower bound, so it must never be too low.
    """
    read = torch.ones(COPY_BYTES, dtype=torch.uint8)
    write = torch.empty_like(read)
    best_ns = min(_timed(clock, lambda: write.copy_(read)) for _ in range(tries))
    return COPY_BYTES / best_ns * 1e9


def loopback_byte_s(clock: Clock, rank: int, *, tries: int = 6) -> float:
    """Return the best rate from rank 0 to rank 1; others get 0. Collective."""
    if rank > 1 or dist.get_world_size() < 2:
        return 0.0
    block = torch.ones(LOOPBACK_BYTES, dtype=torch.uint8)
    token = torch.zeros(1)
    best = 0.0
    for _ in range(tries):
        start = clock()
        if rank == 0:
            dist.send(block, 1)
            dist.recv(token, 1)
        else:
            dist.recv(block, 0)
            dist.send(token, 0)
        best = max(best, LOOPBACK_BYTES / max(1, clock() - start) * 1e9)
    return best


def _timed(clock: Clock, act: Callable[[], object]) -> int:
    start = clock()
    act()
    return max(1, clock() - start)


def clock_sync(clock: Clock, rank: int, *, rounds: int = 16) -> ClockSync:
    """Return how far this rank's clock is ahead of rank 0's. Collective.

    Rank 0 asks each rank in turn; the answer was read between question and
    reply, so half the shortest round trip bounds the error, however busy the
    machine is.
    """
    own = ClockSync(at_ns=clock())
    for peer in range(1, dist.get_world_size()):
        result = torch.zeros(2, dtype=torch.int64)
        if rank == 0:
            result = _ask(clock, peer, rounds)
            dist.send(result, peer)
        elif rank == peer:
            _answer(clock, rounds)
            dist.recv(result, 0)
            own = ClockSync(int(result[0]), int(result[1]), clock())
    return own


def _ask(clock: Clock, peer: int, rounds: int) -> torch.Tensor:
    word = torch.zeros(1, dtype=torch.int64)
    best = (0, 1 << 62)
    for _ in range(rounds):
        start = clock()
        dist.send(word, peer)
        dist.recv(word, peer)
        stop = clock()
        half = (stop - start + 1) // 2
        if half < best[1]:
            best = (int(word) - (start + stop) // 2, half)
    return torch.tensor(best, dtype=torch.int64)


def _answer(clock: Clock, rounds: int) -> None:
    word = torch.zeros(1, dtype=torch.int64)
    for _ in range(rounds):
        dist.recv(word, 0)
        word[0] = clock()
        dist.send(word, 0)


def reset_peak(device: torch.device) -> int:
    """Start a new memory peak and return the bytes in use now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return int(torch.cuda.memory_allocated(device))
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status_bytes("VmRSS")


def peak_bytes(device: torch.device) -> int:
    """Return the most bytes in use since `reset_peak`."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return _status_bytes("VmHWM")


def _status_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return 0
