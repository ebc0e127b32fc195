"""Which points run: those of the workloads that belong to each topology."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from pytest_pd.load.workload import SweepPoint, read_workload, sweep
from pytest_pd.plugin.session import SESSION
from pytest_pd.spec.workload import WorkloadSpec

SMALL = (
    "local_sweep",
    "local_open_loop",
    "local_shared_prefix",
    "local_multi_turn",
    "kv_bandwidth",
)
"""Workloads of topologies that name none and run on CPU."""
LARGE = ("sweep_1_128", "kv_bandwidth")


def workloads_of(config: pytest.Config, topology_id: str) -> dict[str, WorkloadSpec]:
    """Return the workloads of one selected topology by name."""
    choice = config.stash[SESSION].choice
    spec, plan = choice.specs[topology_id], choice.plans[topology_id]
    is_small = plan.rehearsal or plan.hardware == "cpu"
    named: Iterable[str | WorkloadSpec] = spec.workloads or (
        SMALL if is_small else LARGE
    )
    found = [
        word if isinstance(word, WorkloadSpec) else read_workload(word, choice.roots)
        for word in named
    ]
    return {workload.name: workload for workload in found}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    kind = metafunc.definition.get_closest_marker("pd_points")
    if kind is None:
        return
    choice = metafunc.config.stash[SESSION].choice
    points: dict[str, str] = {}
    for topology_id in choice.specs:
        for workload in workloads_of(metafunc.config, topology_id).values():
            for point in sweep(workload):
                if is_of(kind.args[0], workload, point):
                    points.setdefault(f"{workload.name}:{point.label}", point.level)
    params = [
        pytest.param(name, marks=pytest.mark.pd_level(level))
        for name, level in points.items()
    ]
    metafunc.parametrize("point", params)


def is_of(kind: str, workload: WorkloadSpec, point: SweepPoint) -> bool:
    """Whether a point belongs to the tests marked with `kind`."""
    if workload.name == "kv_bandwidth":
        return kind == "bandwidth"
    return kind == ("open" if point.load.is_open else "closed")


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave out points whose workload is not the item's topology's."""
    items[:] = [item for item in items if _belongs(config, item)]


def _belongs(config: pytest.Config, item: pytest.Item) -> bool:
    params = getattr(getattr(item, "callspec", None), "params", {})
    if "point" not in params or "topology" not in params:
        return True
    workload = str(params["point"]).partition(":")[0]
    return workload in workloads_of(config, params["topology"])


@pytest.fixture
def case(
    request: pytest.FixtureRequest, point: str, topology: object
) -> tuple[WorkloadSpec, SweepPoint]:
    """The workload and the point that the test's parameter names."""
    name, _, label = point.partition(":")
    params = request.node.callspec.params
    workload = workloads_of(request.config, params["topology"])[name]
    return workload, next(p for p in sweep(workload) if p.label == label)
