"""One engine: a thread that plans, computes, samples and tells; never touches HTTP."""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pytest_pd.reference.books import Books
from pytest_pd.reference.connector import (
    Connector,
    KvTransferConfig,
    Seat,
    Transfer,
    make_connector,
)
from pytest_pd.reference.faults import Faults
from pytest_pd.reference.kvpool import BlockTable, KvPool
from pytest_pd.reference.metrics import EngineMetrics
from pytest_pd.reference.model import Chunk, Floats, Model
from pytest_pd.reference.mover import Mover
from pytest_pd.reference.request import Event, FinishReason, LogprobRow, Request
from pytest_pd.reference.sampling import choose, logprob_row
from pytest_pd.reference.scheduler import Limits, Scheduler, Work
from pytest_pd.reference.shape import ModelShape
from pytest_pd.reference.tokenizer import Tokenizer
from pytest_pd.reference.wire import TransferError

_log = logging.getLogger("vllm.core")
_IDLE_S = 0.5
"""Longest sleep without work; kept blocks are looked at that often."""

Deliver = Callable[[Sequence[tuple[Request, Event]]], None]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What one engine is made of.

    Attributes:
        rank: Global data-parallel rank.
        shape: Of the model, with the bytes of ``--dtype``.
        dtype: Type of the KV cache.
        blocks: Blocks of the KV cache.
        max_model_len: Longest prompt and answer together, in tokens.
        seed: Where unseeded sampling starts.
    """

    rank: int
    shape: ModelShape
    dtype: str
    blocks: int
    block_size: int
    max_model_len: int
    max_seqs: int
    max_batched_tokens: int
    caching: bool
    kv_transfer: KvTransferConfig | None
    env: Mapping[str, str]
    seed: int = 0


class Engine:
    """Serves requests from a thread of its own.

    Args:
        model: Shared between engines; keeps no state.
        tokenizer: For the text of answers.
        options: See `EngineOptions`.
        faults: Faults to commit.
        metrics: Where this engine counts.
        deliver: Called from the engine's thread after each step with all events.
        died: Called from the engine's thread if an error ends it.

    Raises:
        SpecError: the connector cannot be made.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        options: EngineOptions,
        *,
        faults: Faults,
        metrics: EngineMetrics,
        deliver: Deliver,
        died: Callable[[], None],
    ) -> None:
        self.options = options
        self._model = model
        self._tokenizer = tokenizer
        self._deliver = deliver
        self._died = died
        self._events: list[tuple[Request, Event]] = []
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._requests: dict[str, Request] = {}
        self._stopped = False
        self._leaked: list[bytes] = []
        self._random = random.Random(options.seed)
        self._pool = KvPool(
            options.shape,
            blocks=options.blocks,
            block_size=options.block_size,
            dtype=options.dtype,
        )
        self._connector = self._connect(faults)
        source = self._connector.cache_source if self._connector else None
        self.books = Books(metrics, cache_source=source)
        self._table = BlockTable(options.blocks, caching=options.caching)
        self._scheduler = Scheduler(
            _limits(options),
            self._table,
            connector=self._connector,
            faults=faults,
            books=self.books,
            start_load=self._start_load,
        )
        self._faults = faults
        name = f"engine-{options.rank}"
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the step it is in; requests are not finished."""
        self._inbox.put(self._halt)
        if self._thread.is_alive():
            self._thread.join()
        if self._connector is not None:
            self._connector.close()

    def submit(self, request: Request) -> None:
        """Queue a request; from any thread."""
        self._inbox.put(lambda: self._accept(request))

    def abort(self, name: str) -> None:
        """Drop a request whose client is gone; from any thread."""
        self._inbox.put(lambda: self._abort(name))

    def post(self, act: Callable[[], None]) -> None:
        """Let the engine's thread do `act` before its next step; from any thread."""
        self._inbox.put(act)

    def reset_prefix_cache(self) -> None:
        """Forget all cached blocks; from any thread."""
        self._inbox.put(self._table.forget_all)

    @property
    def load(self) -> int:
        """Requests that are not finished."""
        return len(self._requests) + self._inbox.qsize()

    def _connect(self, faults: Faults) -> Connector | None:
        config = self.options.kv_transfer
        if config is None:
            return None
        seat = Seat(
            rank=self.options.rank,
            mover=Mover(self._pool, faults),
            block_size=self.options.block_size,
            released=lambda name: self._inbox.put(lambda: self._release(name)),
            env=self.options.env,
        )
        return make_connector(config, seat)

    def _halt(self) -> None:
        self._stopped = True

    def _live(self) -> None:
        try:
            self._run()
        except Exception:
            _log.exception("EngineCore encountered a fatal error.")
            self._died()

    def _run(self) -> None:
        while not self._stopped:
            self._read_inbox()
            for name in self._scheduler.expired():
                self.books.kept_expired()
                _log.warning(
                    "Releasing expired KV blocks for request %s which were retrieved "
                    "by 0 remote worker(s) before lease expired.",
                    name,
                )
            if works := self._scheduler.plan():
                self._step(works)
            self._flush()

    def _read_inbox(self) -> None:
        """Do what others asked for; wait for it when there is nothing else to do."""
        try:
            if not self._scheduler.running:
                self._inbox.get(timeout=_IDLE_S)()
            while True:
                self._inbox.get_nowait()()
        except queue.Empty:
            return

    def _flush(self) -> None:
        if self._events:
            self._deliver(self._events)
            self._events = []

    def _accept(self, request: Request) -> None:
        seed = request.sampling.seed
        request.draws.seed(self._random.random() if seed is None else seed)
        for fault in self._faults.fire("submit"):
            count = int(fault.options["tokens"])
            if fault.kind == "prompt_cut":
                request.prompt = request.prompt[count:] or request.prompt
                request.tokens = list(request.prompt)
            else:
                most = request.sampling.max_tokens + count
                request.sampling = replace(request.sampling, max_tokens=most)
        self._requests[request.name] = request
        self._scheduler.waiting.append(request)

    def _abort(self, name: str) -> None:
        request = self._requests.pop(name, None)
        if request is None:
            return
        request.aborted = True
        self.books.finished(request, "abort")
        if name not in self._scheduler.loading:
            self._scheduler.remove(request)

    def _release(self, name: str) -> None:
        if not self._scheduler.release(name):
            self.books.fetched_late()

    def _start_load(self, request: Request) -> None:
        target = self._load
        threading.Thread(target=target, args=(request,), daemon=True).start()

    def _load(self, request: Request) -> None:
        """Fetch foreign KV, in a thread of its own, and report back."""
        assert self._connector is not None
        local = request.cached
        blocks = request.blocks[local // self.options.block_size :]
        try:
            transfer = self._connector.load(request, blocks, local)
        except Exception as exc:
            # Whatever a peer sent: it must end this request, and no other.
            reason = str(exc) if isinstance(exc, TransferError) else repr(exc)
            self._inbox.put(lambda: self._load_failed(request, reason))
        else:
            self._inbox.put(lambda: self._loaded(request, transfer))

    def _loaded(self, request: Request, transfer: Transfer) -> None:
        self._scheduler.loaded(request, transfer)

    def _load_failed(self, request: Request, reason: str) -> None:
        _log.error("KV load of request %s failed: %s", request.name, reason)
        self.books.transfer_failed()
        self._scheduler.loaded(request, None)
        policy = self.options.kv_transfer and self.options.kv_transfer.failure_policy
        if policy == "fail" and not request.aborted:
            self._finish(request, Event(finish="error", error=reason))

    def _step(self, works: Sequence[Work]) -> None:
        """Compute one batch and give every request that is due its next token."""
        self._strike_step()
        chunks = [_chunk(work) for work in works]
        self.books.stepped(sum(work.count for work in works))
        for work, rows in zip(
            works, self._model.forward(chunks, self._pool), strict=True
        ):
            request = work.request
            before = request.computed
            request.computed += work.count
            self._scheduler.remember(request, before)
            self._read_prompt_rows(request, rows, before)
            if request.pending == 0:
                self._next_token(request, rows[-1])

    def _strike_step(self) -> None:
        for fault in self._faults.fire("step"):
            if fault.kind == "memory_growth":
                self._leaked.append(
                    bytes(range(256)) * (int(fault.options["mib"]) << 12)
                )
            elif fault.options["rank"] in (-1, self.options.rank):
                time.sleep(float(fault.options["seconds"]))

    def _read_prompt_rows(self, request: Request, rows: Floats, start: int) -> None:
        best = request.sampling.prompt_logprobs
        if best is None or request.prefilled:
            return
        targets = request.prompt[start + 1 : start + 1 + len(rows)]
        request.prompt_rows += [
            logprob_row(row, token, best)
            for row, token in zip(rows, targets, strict=False)
        ]

    def _next_token(self, request: Request, logits: Floats) -> None:
        if not request.prefilled:
            request.prefilled = True
            self.books.prefilled(request)
            if self._connector is not None:
                self._connector.save(request)
        sampling = request.sampling
        early = request.generated < sampling.min_tokens
        banned = sampling.stop_ids if early else frozenset[int]()
        token = choose(logits, sampling, request.draws.random(), banned=banned)
        request.tokens.append(token)
        self.books.generated(request)
        row: tuple[LogprobRow, ...] = ()
        if sampling.logprobs is not None:
            row = (logprob_row(logits, token, sampling.logprobs),)
        self._tell(request, token, row)

    def _tell(self, request: Request, token: int, row: tuple[LogprobRow, ...]) -> None:
        """Make the event of one token and end the request if it was the last one."""
        sampling, answer = request.sampling, request.answer
        finish: FinishReason | None = None
        reason: str | int | None = None
        if token in sampling.stop_ids:
            finish = "stop"
            reason = None if token == self._tokenizer.eos else token
        else:
            reason = answer.add(self._tokenizer.piece(token))
            if reason is not None and request.generated >= sampling.min_tokens:
                finish = "stop"
            elif self._is_full(request):
                finish = "length"
        text = answer.take(final=finish is not None)
        event = Event((token,), text, row, finish, reason)
        if finish is None:
            self._events.append((request, event))
        else:
            self._finish(request, event)

    def _is_full(self, request: Request) -> bool:
        return (
            request.generated >= request.sampling.max_tokens
            or len(request.tokens) >= self.options.max_model_len
        )

    def _finish(self, request: Request, event: Event) -> None:
        """Take a request out, keep its blocks if they are to be fetched, tell it."""
        assert event.finish is not None
        self._requests.pop(request.name, None)
        handed: Mapping[str, Any] | None = None
        keep_s = None
        if self._connector is not None and event.finish in ("stop", "length"):
            handed = self._connector.hand_on(request)
            keep_s = self._connector.lease_s if handed else None
        self.books.finished(request, event.finish)
        self._scheduler.remove(request, keep_s=keep_s)
        self._events.append((request, replace(event, kv_transfer=handed)))


def _limits(options: EngineOptions) -> Limits:
    return Limits(
        shape=options.shape,
        block_size=options.block_size,
        max_seqs=options.max_seqs,
        max_batched_tokens=options.max_batched_tokens,
        caching=options.caching,
    )


def _chunk(work: Work) -> Chunk:
    request = work.request
    end = request.computed + work.count
    every_row = request.sampling.prompt_logprobs is not None and not request.prefilled
    return Chunk(
        request.tokens[request.computed : end],
        request.computed,
        np.asarray(request.blocks, np.intp),
        every_row=every_row,
    )
