"""Which of several workers takes a request."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from itertools import count
from typing import Protocol

from pytest_pd.errors import SpecError
from pytest_pd.proxy.worker import Worker

POINTS_PER_WORKER = 128


class Policy(Protocol):
    """Chooses one worker of those that may be chosen."""

    def pick(
        self, candidates: Sequence[Worker], key: bytes, *, again: bool = False
    ) -> Worker:
        """Return one of `candidates` (at least one) for a routing `key`.

        Args:
            again: This request has already been tried on a worker that is no
                longer among the candidates.
        """


class RoundRobin:
    """Each in turn.

    Args:
        turn: After this many picks the order is shifted by one. With the number
            of prefill times decode workers every pair of them meets; without,
            2 prefill and 2 decode workers form two pairs for ever.
    """

    def __init__(self, turn: int = 0) -> None:
        self._turn = turn
        self._numbers = count()
        self._number = 0

    def pick(
        self, candidates: Sequence[Worker], key: bytes, *, again: bool = False
    ) -> Worker:
        """Return the next in turn; `key` is not looked at.

        A second try takes no turn: else, of two workers, the sick one would get
        every first try.
        """
        number = self._number if again else next(self._numbers)
        self._number = number
        # With a worker missing, a shift in the middle of a round favours one.
        whole = self._turn and self._turn % len(candidates) == 0
        shift = number // self._turn if whole else 0
        return candidates[(number + shift) % len(candidates)]


class LeastLoaded:
    """The one with the fewest requests in flight; ties go round robin."""

    def __init__(self) -> None:
        self._ties = RoundRobin()

    def pick(
        self, candidates: Sequence[Worker], key: bytes, *, again: bool = False
    ) -> Worker:
        """Return a least busy worker; `key` is not looked at."""
        fewest = min(worker.active for worker in candidates)
        idle = [worker for worker in candidates if worker.active == fewest]
        return self._ties.pick(idle, key, again=again)


class ConsistentHash:
    """The same key always to the same worker, as long as that one is a candidate.

    A worker that leaves moves only its own keys: each has `POINTS_PER_WORKER`
    points on a ring of 64 bits, and a key belongs to the next point that counts.
    """

    def __init__(self, workers: Sequence[Worker]) -> None:
        points = sorted(
            (hash_64(f"{worker.name}#{number}".encode()), index)
            for index, worker in enumerate(workers)
            for number in range(POINTS_PER_WORKER)
        )
        self._workers = tuple(workers)
        self._hashes = [point for point, _ in points]
        self._owners = [owner for _, owner in points]

    def pick(
        self, candidates: Sequence[Worker], key: bytes, *, again: bool = False
    ) -> Worker:
        """Return the candidate that owns `key`."""
        start = bisect_right(self._hashes, hash_64(key))
        allowed = set(candidates)
        for step in range(len(self._owners)):
            owner = self._workers[self._owners[(start + step) % len(self._owners)]]
            if owner in allowed:
                return owner
        return candidates[0]


def hash_64(key: bytes) -> int:
    """Return 64 bits that do not change between processes and Python versions."""
    return int.from_bytes(blake2b(key, digest_size=8).digest())


POLICIES: Mapping[str, Callable[[Sequence[Worker], int], Policy]] = {
    "round_robin": lambda workers, turn: RoundRobin(turn),
    "least_loaded": lambda workers, turn: LeastLoaded(),
    "consistent_hash": lambda workers, turn: ConsistentHash(workers),
}


def make_policy(name: str, workers: Sequence[Worker], *, turn: int = 0) -> Policy:
    """Return the policy called `name` over `workers`.

    Raises:
        SpecError: no policy has that name.
    """
    if name not in POLICIES:
        raise SpecError.unknown("policy", name, POLICIES)
    return POLICIES[name](workers, turn)
