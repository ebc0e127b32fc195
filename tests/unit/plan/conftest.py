"""Plans made of an engine and a router that do nothing of their own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from pytest_pd.plan.build import make_plan
from pytest_pd.plan.model import DeploymentPlan, Endpoint, ReadyPlan, Role, SiteFacts
from pytest_pd.plan.seam import (
    EvidenceNames,
    Handover,
    Launch,
    Program,
    RouterWitness,
    Worker,
)
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.pool import PoolSpec
from pytest_pd.spec.topology import TopologySpec


@dataclass
class PlainEngine:
    """Counts GPUs as vLLM does, and remembers what it was asked to launch."""

    name: str = "plain"
    widths: Mapping[str, int] = field(default_factory=lambda: {"http": 1})
    launched: list[Worker] = field(default_factory=list)

    def gpus_per_replica(self, pool: PoolSpec) -> int:
        return pool.world

    def ports(self, pool: PoolSpec) -> Mapping[str, int]:
        return self.widths

    def check(self, topology: TopologySpec) -> tuple[str, ...]:
        return ()

    def launch(self, worker: Worker) -> Launch:
        self.launched.append(worker)
        url = f"http://{worker.address}:{worker.ports['http']}/health"
        return Launch(
            argv=("serve", *worker.topology.engine.args, *worker.pool.args),
            ready=ReadyPlan("http", url, budget_s=100.0, stall_s=50.0),
            env={"FROM": "launch", "LAUNCH": "1"},
            ranks=worker.dp_ranks,
        )

    def handover(self, topology: TopologySpec) -> Handover:
        return Handover("pull", 16)

    def evidence(self, topology: TopologySpec) -> EvidenceNames:
        return EvidenceNames()

    def programs(self, topology: TopologySpec) -> Sequence[Program]:
        return ()


class PlainRouter:
    """Lists the workers' URLs, and waits for decode."""

    name = "plain"

    def ports(self) -> Mapping[str, int]:
        return {"http": 1, "metrics": 1}

    def check(self, topology: TopologySpec) -> tuple[str, ...]:
        return ()

    def launch(self, worker: Worker, endpoints: Sequence[Endpoint]) -> Launch:
        return Launch(
            argv=(
                "route",
                *(endpoint.url for endpoint in endpoints),
                *worker.pool.args,
            ),
            ready=ReadyPlan("started", "", budget_s=10.0),
            metrics_port="metrics",
            after=(Role.DECODE,),
        )

    def witness(self, topology: TopologySpec) -> RouterWitness:
        return RouterWitness()

    def programs(self, topology: TopologySpec) -> Sequence[Program]:
        return ()


def topology_from(data: Mapping[str, Any]) -> TopologySpec:
    base: dict[str, Any] = {
        "name": "t",
        "hardware": "h100",
        "model": {"path": "/models/m", "served_name": "m"},
        "engine": {"kind": "plain"},
    }
    if not {"aggregated", "prefill"} & data.keys():
        base |= {"prefill": {}, "decode": {}}
    found = {**base, **data}
    if "prefill" in found:
        found.setdefault("kv_transfer", {"connector": "nixl"})
    found.setdefault("router", {"kind": "plain"})
    return TopologySpec.model_validate(found)


Plan = Callable[..., DeploymentPlan]


@pytest.fixture
def engine() -> PlainEngine:
    return PlainEngine()


@pytest.fixture
def plan(engine: PlainEngine) -> Plan:
    """Plan a topology given by keyword, on `nodes` x `gpus`, at a site."""

    def _plan(
        nodes: int = 4,
        gpus: int = 8,
        site: SiteFacts | None = None,
        cluster: Mapping[str, Any] | None = None,
        **data: Any,
    ) -> DeploymentPlan:
        topology = topology_from(data)
        spec = ClusterSpec.model_validate(
            {
                "name": "c",
                "hardware": "h100" if gpus else "cpu",
                "nodes": nodes,
                "gpus_per_node": gpus,
                **(cluster or {}),
            }
        )
        router = PlainRouter() if topology.router else None
        return make_plan(topology, spec, engine, router, site or SiteFacts())

    return _plan
