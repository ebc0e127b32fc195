"""How fast and how many: a token bucket, and a bounded number with a bounded queue."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class TokenBucket:
    """Lets `rate_per_s` requests a second through, and bursts up to `burst`.

    Args:
        rate_per_s: Tokens that come back each second; 0 for no limit.
        burst: Tokens that the bucket holds, at least 1.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        rate_per_s: float,
        burst: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = rate_per_s
        self._size = max(1.0, burst)
        self._clock = clock
        self._tokens = self._size
        self._at = clock()

    def take(self) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        if not self._rate:
            return 0.0
        now = self._clock()
        self._tokens = min(self._size, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1.0 - 1e-9:  # rounding is not a reason to refuse
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._rate


class QueueFullError(Exception):
    """As many requests wait as may wait."""


class QueueTimeoutError(Exception):
    """A request has waited as long as it may."""


class Admission:
    """At most `max_concurrent` requests at a time; the others wait in order.

    Args:
        max_concurrent: Requests served at the same time; 0 for no limit.
        max_queue: Requests that may wait; one more is refused.
        timeout_s: Seconds that one may wait.
    """

    def __init__(self, max_concurrent: int, max_queue: int, timeout_s: float) -> None:
        self._limit = max_concurrent
        self._max_queue = max_queue
        self._timeout_s = timeout_s
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.active = 0

    @property
    def depth(self) -> int:
        """Return how many requests wait."""
        return len(self._waiting)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold one of the places.

        Raises:
            QueueFullError: nobody more may wait.
            QueueTimeoutError: no place came free in time.
        """
        await self._enter()
        try:
            yield
        finally:
            self._leave()

    async def _enter(self) -> None:
        if not self._limit or (self.active < self._limit and not self._waiting):
            self.active += 1
            return
        if len(self._waiting) >= self._max_queue:
            raise QueueFullError
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            async with asyncio.timeout(self._timeout_s):
                await place
        except BaseException as error:
            self._give_up(place)
            if isinstance(error, TimeoutError):
                raise QueueTimeoutError from error
            raise

    def _give_up(self, place: asyncio.Future[None]) -> None:
        """Leave the queue; a place granted in the same moment is handed on."""
        if place.done() and not place.cancelled():
            self._leave()
        elif place in self._waiting:
            self._waiting.remove(place)

    def _leave(self) -> None:
        """Hand the place to the one who waits longest, else give it back."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():  # cancelled, and has not yet left the queue itself
                place.set_result(None)
                return
        self.active -= 1
