"""Placed workers without a planner, so that an adapter is asked alone."""

from collections.abc import Callable
from typing import Any

import pytest

from pytest_pd.plan.model import Role, SiteFacts
from pytest_pd.plan.seam import Worker
from pytest_pd.spec.topology import TopologySpec


def topology_from(**data: Any) -> TopologySpec:
    base: dict[str, Any] = {
        "name": "t",
        "hardware": "h100",
        "model": {"path": "/models/m", "served_name": "m"},
        "engine": {"kind": "vllm"},
    }
    return TopologySpec.model_validate({**base, **data})


@pytest.fixture
def make_topology() -> Callable[..., TopologySpec]:
    """A topology of one aggregated worker on H100 unless told otherwise."""

    def make(**data: Any) -> TopologySpec:
        if not {"aggregated", "prefill"} & data.keys():
            data["aggregated"] = {}
        return topology_from(**data)

    return make


@pytest.fixture
def make_worker() -> Callable[..., Worker]:
    """Process `index` of `count` of one replica, ports as an engine asks for them."""

    def make(
        topology: TopologySpec,
        role: Role = Role.AGGREGATED,
        *,
        index: int = 0,
        count: int = 1,
        peers: dict[str, str] | None = None,
        **ports: int,
    ) -> Worker:
        given = {"http": 8100, "side_channel": 5600, "dp_rpc": 13345, "master": 29501}
        pool = getattr(topology, role.value, None) or topology.aggregated
        return Worker(
            name=f"{role.value}-0",
            role=role,
            replica=0,
            index=index,
            count=count,
            address=f"10.0.0.{index + 1}",
            head="10.0.0.1",
            gpu_ids=(),
            ports=given | ports,
            head_ports=given,
            pool=pool,
            topology=topology,
            site=SiteFacts(run_dir="/runs/r1"),
            peers=peers or {},
        )

    return make
