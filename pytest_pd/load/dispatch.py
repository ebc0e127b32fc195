"""Which request starts when: closed loop, open loop, conversations."""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence

from pytest_pd.load.clock import NS
from pytest_pd.load.prompts import Prompt

Start = tuple[int, int]
"""Intended time in monotonic ns, and index of the prompt."""


class Dispatcher:
    """Base of the loops: what both know about conversations and the end.

    Args:
        prompts: All prompts; `indices` says which of them are meant.
        indices: In the order in which they shall start.
        start_ns: Monotonic time at which the phase begins.
        stop_ns: No request starts at or after this; None for no limit.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        indices: Iterable[int],
        *,
        start_ns: int,
        stop_ns: int | None = None,
    ) -> None:
        self._prompts = prompts
        self._stop_ns = stop_ns
        self._start_ns = start_ns
        self._followers: dict[int, list[int]] = defaultdict(list)
        self._due: list[Start] = []
        self.order: list[int] = []
        for index in indices:
            previous = prompts[index].follows
            if previous is None:
                self.order.append(index)
            else:
                self._followers[previous].append(index)

    def has_followers(self, index: int) -> bool:
        """Whether the answer of `index` is needed to write another request."""
        return index in self._followers

    def take(self, now_ns: int, in_flight: int) -> Start | None:
        """Return the next request that is due, None when none is."""
        if self._stop_ns is not None and now_ns >= self._stop_ns:
            self.cancel()
            return None
        return self._take(now_ns, in_flight)

    def _take(self, now_ns: int, in_flight: int) -> Start | None:
        raise NotImplementedError

    def due_ns(self, in_flight: int) -> int | None:
        """Return when the next request is due; None when an answer has to end first."""
        raise NotImplementedError

    def finished(self, index: int, end_ns: int, *, is_ok: bool) -> None:
        """Note that `index` is over; its conversation goes on only if it is ok."""
        for follower in self._followers.pop(index, ()):
            if is_ok:
                think_ns = int(self._prompts[follower].think_s * NS)
                heapq.heappush(self._due, (end_ns + think_ns, follower))

    def cancel(self) -> None:
        """Start nothing any more."""
        self._due.clear()
        self._followers.clear()

    @property
    def is_over(self) -> bool:
        """Whether nothing is left that could start without an answer."""
        return not self._due


class ClosedLoop(Dispatcher):
    """A fixed number of streams; each starts a request when its last one ended.

    The intended time of a request is the moment at which its stream became free.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        indices: Iterable[int],
        *,
        start_ns: int,
        concurrency: int,
        ramp_s: float = 0.0,
        stop_ns: int | None = None,
    ) -> None:
        super().__init__(prompts, indices, start_ns=start_ns, stop_ns=stop_ns)
        self._fresh = deque(self.order)
        step_ns = ramp_s * NS / concurrency
        self._free = [start_ns + int(k * step_ns) for k in range(concurrency)]

    def _take(self, now_ns: int, in_flight: int) -> Start | None:
        if not self._free or self._free[0] > now_ns:
            return None
        if self._due and self._due[0][0] <= now_ns:
            due_ns, index = heapq.heappop(self._due)
            return max(due_ns, heapq.heappop(self._free)), index
        if self._fresh:
            return heapq.heappop(self._free), self._fresh.popleft()
        return None

    def due_ns(self, in_flight: int) -> int | None:
        if not self._free:
            return None
        if self._fresh:
            return self._free[0]
        return max(self._due[0][0], self._free[0]) if self._due else None

    def finished(self, index: int, end_ns: int, *, is_ok: bool) -> None:
        super().finished(index, end_ns, is_ok=is_ok)
        heapq.heappush(self._free, end_ns)

    def cancel(self) -> None:
        super().cancel()
        self._fresh.clear()

    @property
    def is_over(self) -> bool:
        return not self._fresh and super().is_over


class OpenLoop(Dispatcher):
    """Starts at times fixed beforehand, whatever the server does.

    Args:
        offsets_ns: Intended start of each entry of `indices` that follows none,
            relative to `start_ns`, ascending.
        cap: Most requests in flight; the rest wait, and are late.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        indices: Iterable[int],
        *,
        start_ns: int,
        offsets_ns: Sequence[int],
        cap: int | None = None,
        stop_ns: int | None = None,
    ) -> None:
        super().__init__(prompts, indices, start_ns=start_ns, stop_ns=stop_ns)
        self._cap = cap
        times = (start_ns + int(offset) for offset in offsets_ns)
        self._due = list(zip(times, self.order, strict=False))
        heapq.heapify(self._due)

    def _take(self, now_ns: int, in_flight: int) -> Start | None:
        if not self._due or self._due[0][0] > now_ns or self._is_full(in_flight):
            return None
        return heapq.heappop(self._due)

    def due_ns(self, in_flight: int) -> int | None:
        if not self._due or self._is_full(in_flight):
            return None
        return self._due[0][0]

    def _is_full(self, in_flight: int) -> bool:
        return self._cap is not None and in_flight >= self._cap
