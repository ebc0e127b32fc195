"""One stage of a request: choose a worker, send, and try the next when it fails."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from pytest_pd.proxy.exchange import Exchange
from pytest_pd.proxy.fault import Fault
from pytest_pd.proxy.metrics import Metrics
from pytest_pd.proxy.pool import Pool
from pytest_pd.proxy.replies import RefusedError, bad_gateway, no_worker
from pytest_pd.proxy.upstream import Reply, Upstream, UpstreamError
from pytest_pd.proxy.worker import Worker

log = logging.getLogger("pytest_pd.proxy")

# These say that the worker is in trouble. A status of 500 says only that it could not
# serve this request, and one poisoned request must not take every worker down.
_SIGNS_OF_DEATH = frozenset({"connect", "timeout", "reset", "broken_body", "protocol"})


@dataclass(frozen=True, slots=True)
class Stage:
    """Sends requests to the workers of one role.

    Attributes:
        policy_name: Label of the policy in metrics.
        retries: Attempts after the first.
        failure_threshold: Failures in a row after which a worker is down.
    """

    pool: Pool
    upstream: Upstream
    metrics: Metrics
    policy_name: str
    retries: int
    failure_threshold: int

    @asynccontextmanager
    async def open(
        self,
        exchange: Exchange,
        key: bytes,
        headers: Mapping[str, str],
        prepare: Callable[[], Awaitable[bytes]],
        *,
        on_taken: Callable[[], None] = lambda: None,
    ) -> AsyncIterator[Reply]:
        """Yield the reply of the first worker that serves the request.

        Args:
            key: What consistent hashing goes by.
            prepare: Called before each attempt; what it returns is sent.
            on_taken: Called when a worker failed that may have begun on the request.

        Raises:
            RefusedError: no worker is up, or all attempts failed.
        """
        tried: list[Worker] = []
        while True:
            body = await prepare()
            worker = self._pick(exchange, key, tried)
            exchange.stage = self.pool.role
            with _busy(worker):
                try:
                    reply = await self.upstream.send(
                        worker, exchange.route, headers, body
                    )
                except UpstreamError as failure:
                    tried.append(worker)
                    self._failed(exchange, worker, tried, failure)
                    if failure.taken:
                        on_taken()
                    continue
                worker.succeeded()
                try:
                    yield reply
                finally:
                    reply.close()
                return

    def require(self) -> None:
        """Raise `RefusedError` when every worker is down."""
        if not self.pool.candidates():
            down = [f"{w.name}: {w.last_error or 'down'}" for w in self.pool.workers]
            raise no_worker(self.pool.role, "; ".join(down))

    def note(self, worker: Worker, failure: UpstreamError) -> None:
        """Count a failure of `worker`; too many, and it is down."""
        self.metrics.stage_errors[self.pool.role].add(worker.name, failure.reason)
        log.warning("%s worker %s failed: %s", self.pool.role, worker.name, failure)
        if failure.reason in _SIGNS_OF_DEATH:
            # Nobody listens: that needs no second opinion.
            threshold = 1 if failure.reason == "connect" else self.failure_threshold
            worker.failed(str(failure), threshold=threshold)

    def note_by_name(self, name: str, failure: UpstreamError) -> None:
        """Count a failure of the worker called `name`."""
        for worker in self.pool.workers:
            if worker.name == name:
                self.note(worker, failure)

    def _pick(self, exchange: Exchange, key: bytes, tried: list[Worker]) -> Worker:
        candidates = self.pool.candidates(without=tried)
        if not candidates:
            # A kept connection that its server has closed looks like a death, so
            # the last one tried may be tried again when nobody else is left.
            if not tried:
                self.require()
            candidates = tried[-1:]
        if exchange.faults:
            candidates = _misrouted(exchange.faults, self.pool, candidates)
        worker = self.pool.policy.pick(candidates, key, again=bool(tried))
        exchange.served_by[self.pool.role] = worker.name
        self.metrics.decisions.add(self.policy_name, self.pool.role, worker.name)
        self.metrics.stage_requests[self.pool.role].add(worker.name)
        return worker

    def _failed(
        self,
        exchange: Exchange,
        worker: Worker,
        tried: list[Worker],
        failure: UpstreamError,
    ) -> None:
        """Note the failure; return if another attempt is due, else raise."""
        self.note(worker, failure)
        others = bool(self.pool.candidates(without=tried))
        same = failure.reason == "reset" and tried.count(worker) == 1
        if len(tried) <= self.retries and (others or same):
            exchange.retries += 1
            self.metrics.retries.add(self.pool.role, failure.reason)
            return
        if failure.answer is not None:
            outcome = f"{self.pool.role}_{failure.reason}"
            raise RefusedError(failure.answer, outcome) from failure
        raise bad_gateway(
            self.pool.role, worker.name, failure.reason, len(tried)
        ) from failure


@contextmanager
def _busy(worker: Worker) -> Iterator[None]:
    worker.active += 1
    try:
        yield
    finally:
        worker.active -= 1


def _misrouted(
    faults: Mapping[str, Fault], pool: Pool, candidates: list[Worker]
) -> list[Worker]:
    """Return the candidates that the faults ``pin_worker``, ``drop_worker`` leave."""
    pin = faults.get("pin_worker")
    if pin is not None and pin.role == pool.role:
        return [pool.workers[pin.worker % len(pool.workers)]]
    drop = faults.get("drop_worker")
    if drop is not None and drop.role == pool.role:
        dropped = pool.workers[drop.worker % len(pool.workers)]
        return [worker for worker in candidates if worker is not dropped] or candidates
    return candidates
