"""Asks every worker's /health in turn, and reinstates those that come back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from pytest_pd.proxy.upstream import Upstream, UpstreamError
from pytest_pd.proxy.worker import Health, Worker

log = logging.getLogger("pytest_pd.proxy")

# A topology is up when its last worker is: that must not wait for the next round.
SOON_S = 0.1


class Prober:
    """Probes workers for as long as it runs.

    Args:
        interval_s: Seconds between two probes of a worker that is up; one that is not
            is asked every `SOON_S` seconds, if that is sooner.
        timeout_s: Seconds after which a probe has failed.
        threshold: Failed probes in a row after which a worker is down.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        interval_s: float,
        timeout_s: float,
        threshold: int,
    ) -> None:
        self._upstream = upstream
        self._interval_s = interval_s
        self._soon_s = min(interval_s, SOON_S)
        self._timeout_s = timeout_s
        self._threshold = threshold

    async def run(self, workers: Sequence[Worker]) -> None:
        """Probe until cancelled."""
        async with asyncio.TaskGroup() as group:
            for worker in workers:
                group.create_task(self._watch(worker))

    async def probe(self, worker: Worker) -> None:
        """Ask once, and note what was learnt."""
        before = worker.health
        try:
            status = await self._upstream.get(worker, "/health", self._timeout_s)
        except UpstreamError as failure:
            worker.failed(str(failure), threshold=self._threshold)
        else:
            if status == 200:
                worker.succeeded()
            else:
                worker.failed(f"/health says {status}", threshold=self._threshold)
        if worker.health is not before:
            _tell(worker, before)

    async def _watch(self, worker: Worker) -> None:
        while True:
            await self.probe(worker)
            up = worker.health is Health.UP
            await asyncio.sleep(self._interval_s if up else self._soon_s)


def _tell(worker: Worker, before: Health) -> None:
    if worker.health is Health.UP:
        log.info("%s worker %s is up", worker.role, worker.name)
    elif before is Health.UNKNOWN:  # nothing wrong: workers take longer to start
        log.info("%s worker %s is not up yet", worker.role, worker.name)
    else:
        why = worker.last_error
        log.warning("%s worker %s is down: %s", worker.role, worker.name, why)
