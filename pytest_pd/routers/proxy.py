"""The built-in proxy: prefill with one token, then decode."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from pytest_pd.errors import SpecError
from pytest_pd.plan.model import Endpoint, ReadyPlan, Role
from pytest_pd.plan.seam import Launch, Program, RouterWitness, Worker
from pytest_pd.spec.topology import TopologySpec

POLICIES = ("consistent_hash", "least_loaded", "round_robin")
SHARED = ("shared_storage", "ExampleConnector", "SharedStorageConnector")


class Proxy:
    """Turns workers' endpoints into ``python -m pytest_pd.proxy``."""

    name = "proxy"

    def ports(self) -> Mapping[str, int]:
        """One port: API, health and metrics share it."""
        return {"http": 1}

    def check(self, topology: TopologySpec) -> tuple[str, ...]:
        """Refuse policies that the proxy has not."""
        policy = topology.router.policy if topology.router else None
        if policy and policy not in POLICIES:
            raise SpecError.unknown("router.policy", policy, POLICIES)
        spec = topology.router
        names = ("config", "session_affinity")
        ignored = [name for name in names if spec and getattr(spec, name)]
        if ignored:
            return (f"router.{', '.join(ignored)}: the proxy has no such thing.",)
        return ()

    def launch(self, worker: Worker, endpoints: Sequence[Endpoint]) -> Launch:
        """Return argv and readiness; it may start before the workers are up."""
        url = f"http://{worker.address}:{worker.ports['http']}"
        return Launch(
            argv=tuple(_argv(worker, endpoints)),
            ready=ReadyPlan("http", f"{url}/health", budget_s=60.0, stall_s=30.0),
        )

    def witness(self, topology: TopologySpec) -> RouterWitness:
        """Return the headers and counters that name the workers of a request."""
        return RouterWitness(
            prefill_requests="pd_proxy_prefill_requests_total",
            decode_requests="pd_proxy_decode_requests_total",
            worker_label="worker",
            headers=("x-pd-prefill-worker", "x-pd-decode-worker"),
        )

    def programs(self, topology: TopologySpec) -> Sequence[Program]:
        """Return nothing: the proxy is a part of this package."""
        return ()


def _argv(worker: Worker, endpoints: Sequence[Endpoint]) -> Iterator[str]:
    topology = worker.topology
    spec = topology.router
    yield from (worker.site.python, "-m", "pytest_pd.proxy")
    yield from ("--host", worker.address, "--port", str(worker.ports["http"]))
    for endpoint in endpoints:
        # an aggregated worker is a decode worker that nobody prefills for
        side = "prefill" if endpoint.role is Role.PREFILL else "decode"
        yield from (f"--{side}-url", endpoint.url)
    yield from ("--transfer", _transfer(topology))
    if spec and spec.policy:
        yield from ("--policy", spec.policy)
    for fault in spec.faults if spec else ():
        yield from ("--fault", json.dumps(fault, separators=(",", ":")))
    yield from worker.pool.args


def _transfer(topology: TopologySpec) -> str:
    transfer = topology.kv_transfer
    if transfer is None or not topology.prefill:
        return "none"
    return "shared_storage" if transfer.connector in SHARED else "pull"
