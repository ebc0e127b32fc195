"""Which points run: those of the workloads that belong to each topology."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from pytest_pd.load.workload import SweepPoint, read_workload, sweep
from pytest_pd.measure.goodput import searched, slo_of
from pytest_pd.plugin.session import SESSION
from pytest_pd.spec.slo import SloSpec
from pytest_pd.spec.topology import TopologySpec
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
TOY = "local_open_loop"
"""Searched for goodput on CPU where a topology has no open loop of its own."""


def workloads_of(config: pytest.Config, topology_id: str) -> dict[str, WorkloadSpec]:
    """Return the workloads of one selected topology by name."""
    choice = config.stash[SESSION].choice
    is_small = runs_on_cpu(config, topology_id)
    named: Iterable[str | WorkloadSpec] = choice.specs[topology_id].workloads or (
        SMALL if is_small else LARGE
    )
    found = [
        word if isinstance(word, WorkloadSpec) else read_workload(word, choice.roots)
        for word in named
    ]
    return {workload.name: workload for workload in found}


def runs_on_cpu(config: pytest.Config, topology_id: str) -> bool:
    """Whether a topology is a laptop's: engines that play hardware run on CPUs."""
    plan = config.stash[SESSION].choice.plans[topology_id]
    return plan.rehearsal or plan.hardware == "cpu"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    kind = metafunc.definition.get_closest_marker("pd_points")
    if kind is None:
        return
    choice = metafunc.config.stash[SESSION].choice
    names = dict.fromkeys(
        f"{workload.name}:{point.label}"
        for topology_id in choice.specs
        for workload in workloads_of(metafunc.config, topology_id).values()
        for point in sweep(workload)
        if is_of(kind.args[0], workload, point)
    )
    metafunc.parametrize("point", list(names))


def is_of(kind: str, workload: WorkloadSpec, point: SweepPoint) -> bool:
    """Whether a point belongs to the tests marked with `kind`."""
    if workload.name == "kv_bandwidth":
        return kind == "bandwidth"
    return kind == ("open" if point.load.is_open else "closed")


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave out points that are not the item's topology's; mark the level of others.

    Topologies may each have a workload of one name, with other points and levels.
    """
    items[:] = [item for item in items if _belongs(config, item)]


def _belongs(config: pytest.Config, item: pytest.Item) -> bool:
    params = getattr(getattr(item, "callspec", None), "params", {})
    if "point" not in params or "topology" not in params:
        return True
    own = case_of(config, params["topology"], str(params["point"]))
    if own is None:
        return False
    item.add_marker(pytest.mark.pd_level(own[1].level))
    return True


def case_of(
    config: pytest.Config, topology_id: str, name: str
) -> tuple[WorkloadSpec, SweepPoint] | None:
    """Return the workload and point that a topology has by a name, None for none."""
    word, _, label = name.partition(":")
    workload = workloads_of(config, topology_id).get(word)
    points = sweep(workload) if workload else ()
    found = [point for point in points if point.label == label]
    return (workload, found[0]) if workload and found else None


@pytest.fixture
def case(
    request: pytest.FixtureRequest, point: str, topology: object
) -> tuple[WorkloadSpec, SweepPoint]:
    """The workload and the point that the test's parameter names."""
    found = case_of(request.config, request.node.callspec.params["topology"], point)
    assert found, "points of other topologies are left out at collection"
    return found


@pytest.fixture
def goodput_case(
    request: pytest.FixtureRequest, topology: TopologySpec
) -> tuple[WorkloadSpec, SloSpec]:
    """Whose prompts a search for goodput sends, and what a user is promised."""
    topology_id = request.node.callspec.params["topology"]
    workload = searched(workloads_of(request.config, topology_id).values())
    is_small = runs_on_cpu(request.config, topology_id)
    if is_small and not (workload and workload.rate_per_s):
        workload = read_workload(TOY)
    if workload is None:
        pytest.skip("this topology's workloads are traces and conversations only")
    slo = slo_of(topology.slo, workload.slo)
    if slo is None:
        pytest.skip(
            f"nobody says what is good enough: set slo: in the topology or in "
            f"workload {workload.name}"
        )
    return workload, slo
