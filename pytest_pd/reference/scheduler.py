"""Who computes what next: queues, blocks, prefix cache, hand-over, preemption.

Continuous batching as in vLLM V1: each step gives every running request its next
token (or the next chunk of its prompt) and fills the rest of the token budget with
waiting ones. All methods belong to the engine's thread.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from pytest_pd.reference.books import Books
from pytest_pd.reference.connector import Connector, Transfer
from pytest_pd.reference.faults import Faults
from pytest_pd.reference.kvpool import BlockTable, block_hashes
from pytest_pd.reference.request import Request
from pytest_pd.reference.shape import ModelShape, blocks_for, transferred_bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """How much fits into one step, and into a block."""

    shape: ModelShape
    block_size: int
    max_seqs: int
    max_batched_tokens: int
    caching: bool


@dataclass(frozen=True, slots=True)
class Work:
    """Compute the next `count` tokens of `request`."""

    request: Request
    count: int


@dataclass(frozen=True, slots=True)
class Kept:
    """Blocks of a finished prompt that another engine is to fetch until then."""

    blocks: tuple[int, ...]
    until_s: float


class Scheduler:
    """Queues and blocks of one engine.

    Args:
        limits: See `Limits`.
        table: Owners of the blocks.
        connector: None for an engine without hand-over.
        faults: Asked at the seam ``admit``.
        books: Told of everything countable.
        start_load: Called with a request whose KV is to be fetched.
    """

    def __init__(
        self,
        limits: Limits,
        table: BlockTable,
        *,
        connector: Connector | None,
        faults: Faults,
        books: Books,
        start_load: Callable[[Request], None],
    ) -> None:
        self.waiting: deque[Request] = deque()
        self.loading: dict[str, Request] = {}
        self.running: list[Request] = []
        self.kept: dict[str, Kept] = {}
        self._limits = limits
        self._table = table
        self._connector = connector
        self._faults = faults
        self._books = books
        self._start_load = start_load

    def plan(self) -> list[Work]:
        """Return the work of the next step; empty when there is none now."""
        budget = self._limits.max_batched_tokens
        works: list[Work] = []
        for request in tuple(self.running):
            count = min(request.pending, budget)
            if count and request in self.running and self._grow(request, count):
                works.append(Work(request, count))
                budget -= count
        works = [work for work in works if work.request in self.running]
        while budget > 0 and self._has_seat():
            request = self.waiting[0]
            if not self._admit(request):
                break
            self.waiting.popleft()
            if request.name not in self.loading:
                self.running.append(request)
                count = min(request.pending, budget)
                works.append(Work(request, count))
                budget -= count
        self._tell_state()
        return works

    def _has_seat(self) -> bool:
        taken = len(self.running) + len(self.loading)
        return bool(self.waiting) and taken < self._limits.max_seqs

    def _tell_state(self) -> None:
        self._books.state(
            running=len(self.running),
            waiting=len(self.waiting),
            loading=len(self.loading),
            usage=self._table.used_fraction,
        )

    def _grow(self, request: Request, count: int) -> bool:
        """Get blocks for `count` more tokens, at the cost of the youngest request."""
        needed = blocks_for(request.computed + count, self._limits.block_size)
        while len(request.blocks) < needed:
            taken = self._table.take(needed - len(request.blocks))
            if taken is not None:
                request.blocks += taken
                return True
            victim = self.running[-1]
            self._preempt(victim)
            if victim is request:
                return False
        return True

    def _preempt(self, request: Request) -> None:
        self.running.remove(request)
        self._table.give_back(request.blocks)
        request.blocks, request.computed = [], 0
        request.preemptions += 1
        self.waiting.appendleft(request)
        self._books.preempted()

    def _admit(self, request: Request) -> bool:
        """Give a waiting request its blocks; false when there are not enough."""
        size = self._limits.block_size
        looked_up = self._limits.caching and request.sampling.prompt_logprobs is None
        request.mistaken = looked_up and bool(self._faults.fire("lookup"))
        request.hashes = self._hashes(request)
        reusable = request.hashes[: (len(request.tokens) - 1) // size]
        local = self._table.share(reusable) if looked_up else []
        taken = self._table.take(blocks_for(len(request.tokens), size) - len(local))
        if taken is None:
            self._table.give_back(local)
            return False
        request.blocks = local + taken
        request.computed = len(local) * size
        if request.preemptions == 0:
            request.scheduled_s = time.perf_counter()
            request.cached = request.computed
            self._seek_external(request)
            self._books.admitted(request, looked_up=looked_up)
        return True

    def _hashes(self, request: Request) -> list[bytes]:
        """Return the names of its whole blocks in the prefix cache."""
        tokens = [0] * len(request.tokens) if request.mistaken else request.tokens
        return list(block_hashes(tokens, self._limits.block_size))

    def _seek_external(self, request: Request) -> None:
        """Ask the connector, and start to fetch what it has."""
        if self._connector is None:
            return
        found = self._connector.match(request, request.cached)
        if not found:
            return
        fetch = True
        for fault in self._faults.fire("admit"):
            request.recompute = True
            request.claimed = found if fault.options["metrics"] == "lying" else 0
            fetch = bool(fault.options["pull"])
        if fetch:
            request.external = found
            self.loading[request.name] = request
            self._start_load(request)
        elif request.claimed:
            self._books.transferred(self._invented(request))

    def _invented(self, request: Request) -> Transfer:
        """Return the transfer that a lying engine claims to have made."""
        shape, size = self._limits.shape, self._limits.block_size
        tokens, cached = request.prompt_tokens, request.cached
        moved = transferred_bytes(shape, tokens, size, cached_tokens=cached)
        return Transfer(tokens - cached, moved, shape.layers, 1e-3, 1e-4)

    def loaded(self, request: Request, transfer: Transfer | None) -> None:
        """Go on with a request whose load ended; None means that it failed."""
        del self.loading[request.name]
        if request.aborted:
            self._table.give_back(request.blocks)
            return
        if transfer is None:
            request.external = 0
        else:
            self._books.transferred(transfer)
            request.computed += transfer.tokens
        if request.recompute:
            request.computed = request.cached
        # The last token is computed in any case: its logits are the first output.
        request.computed = min(request.computed, len(request.tokens) - 1)
        self.remember(request, request.cached)
        self.running.append(request)

    def remember(self, request: Request, before: int) -> None:
        """Let blocks that became full since `before` computed tokens be found."""
        size = self._limits.block_size
        if request.computed // size == before // size:
            return
        request.hashes = self._hashes(request)
        for index in range(before // size, request.computed // size):
            self._table.remember(request.blocks[index], request.hashes[index])

    def remove(self, request: Request, *, keep_s: float | None = None) -> None:
        """Take a finished request out; keep its blocks for a while if asked to."""
        if request in self.running:
            self.running.remove(request)
        elif request in self.waiting:
            self.waiting.remove(request)
        if keep_s is None:
            self._table.give_back(request.blocks)
        else:
            until_s = time.perf_counter() + keep_s
            self.kept[request.name] = Kept(tuple(request.blocks), until_s)
        request.blocks = []
        self._tell_state()

    def release(self, name: str) -> bool:
        """Let go of kept blocks; false when there are none of that name."""
        kept = self.kept.pop(name, None)
        if kept is not None:
            self._table.give_back(kept.blocks)
            self._tell_state()
        return kept is not None

    def expired(self) -> list[str]:
        """Let go of kept blocks whose time is up and return their names."""
        now = time.perf_counter()
        names = [name for name, kept in self.kept.items() if kept.until_s <= now]
        for name in names:
            self.release(name)
        return names
