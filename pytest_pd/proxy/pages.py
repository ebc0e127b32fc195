"""Everything the proxy answers besides generation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from pytest_pd.errors import PdError
from pytest_pd.proxy.fault import FaultTable, parse_faults
from pytest_pd.proxy.metrics import Metrics
from pytest_pd.proxy.pool import Pool
from pytest_pd.proxy.replies import RefusedError, bad_gateway, error_answer, no_worker
from pytest_pd.proxy.upstream import Upstream, UpstreamError
from pytest_pd.proxy.worker import Health, Role, Worker


@dataclass(slots=True)
class Pages:
    """Handlers of the pages about the proxy and its workers."""

    pools: Mapping[Role, Pool]
    upstream: Upstream
    metrics: Metrics
    faults: FaultTable
    _frozen: str | None = None

    async def liveness(self, request: web.Request) -> web.Response:
        """Say that the proxy itself lives."""
        return web.Response(text="OK")

    async def health(self, request: web.Request) -> web.Response:
        """Return 200 when every worker is up, else 503 with those that are not."""
        sick = {
            worker.name: worker.last_error or str(worker.health)
            for worker in self._workers()
            if worker.health is not Health.UP
        }
        if self.faults.stands("ready_lie"):
            sick = {}
        body = {"status": "unhealthy" if sick else "healthy", "unhealthy": sick}
        return web.json_response(body, status=503 if sick else 200)

    async def readiness(self, request: web.Request) -> web.Response:
        """Return 200 when each role has a worker that is up, with the counts."""
        lacking = [
            str(role)
            for role, pool in self.pools.items()
            if pool.workers and not pool.healthy()
        ]
        if self.faults.stands("ready_lie"):
            lacking = []
        body: dict[str, object] = {"status": "not_ready" if lacking else "ready"}
        if lacking:
            body["reason"] = ", ".join(f"no healthy {role} workers" for role in lacking)
        body |= {str(role): pool.counts() for role, pool in self.pools.items()}
        return web.json_response(body, status=503 if lacking else 200)

    async def workers(self, request: web.Request) -> web.Response:
        """List the workers with health and load."""
        listed = [
            {
                "url": worker.name,
                "worker_type": str(worker.role),
                "is_healthy": worker.health is Health.UP,
                "health": str(worker.health),
                "load": worker.active,
                "failures": worker.failures,
                "last_error": worker.last_error,
            }
            for worker in self._workers()
        ]
        return web.json_response({"workers": listed, "total": len(listed)})

    async def show_metrics(self, request: web.Request) -> web.Response:
        """Return the metrics in Prometheus' text format."""
        text = self.metrics.page()
        if self.faults.stands("metrics_frozen"):
            text = self._frozen = self._frozen or text
        else:
            self._frozen = None
        if self.faults.stands("metrics_doubled"):
            text = _doubled(text)
        return web.Response(text=text, content_type="text/plain", charset="utf-8")

    async def pass_on(self, request: web.Request) -> web.Response:
        """Hand the request to the first decode worker that serves it."""
        try:
            return await self._passed(request)
        except RefusedError as refusal:
            answer = refusal.answer
            return web.Response(
                status=answer.status, body=answer.body, headers=answer.headers
            )

    async def show_faults(self, request: web.Request) -> web.Response:
        """Return the faults in force."""
        return web.json_response([fault.shown() for fault in self.faults.faults])

    async def set_faults(self, request: web.Request) -> web.Response:
        """Put the faults of the body in force, in place of all others."""
        try:
            self.faults.replace(parse_faults(await request.read()))
        except PdError as error:
            bad = error_answer(400, str(error), kind="invalid_request", code="fault")
            return web.Response(status=400, body=bad.body, headers=bad.headers)
        self._frozen = None
        return await self.show_faults(request)

    async def clear_faults(self, request: web.Request) -> web.Response:
        """Put no fault in force."""
        self.faults.replace(())
        return await self.show_faults(request)

    async def _passed(self, request: web.Request) -> web.Response:
        body = await request.read() if request.can_read_body else None
        refusal = no_worker(Role.DECODE, "")
        for worker in self.pools[Role.DECODE].candidates():
            try:
                reply = await self.upstream.send(
                    worker,
                    request.path_qs,
                    request.headers,
                    body,
                    method=request.method,
                )
            except UpstreamError as failure:
                refusal = _refused(worker, failure)
            else:
                return web.Response(
                    status=reply.status, body=reply.first, headers=reply.headers
                )
        raise refusal

    def _workers(self) -> list[Worker]:
        return [worker for pool in self.pools.values() for worker in pool.workers]


def _refused(worker: Worker, failure: UpstreamError) -> RefusedError:
    if failure.answer is not None:
        return RefusedError(failure.answer, failure.reason)
    return bad_gateway(Role.DECODE, worker.name, failure.reason, 1)


def _doubled(text: str) -> str:
    """Return the page with every number twice as big: what a lie looks like."""
    lines = []
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        lines.append(line if line.startswith("#") else f"{name} {float(value) * 2:g}")
    return "\n".join(lines) + "\n"
