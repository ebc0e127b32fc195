"""A router is not late as long as the workers behind it still load."""

from pathlib import Path
from types import SimpleNamespace

from pytest_pd.plan.model import ReadyPlan, Role, ServicePlan
from pytest_pd.probe.ready import Wait
from pytest_pd.provision.bringup import hold_back_routers


def waiting(role: Role) -> Wait:
    ready = ReadyPlan("http", "http://127.0.0.1:1/", budget_s=60.0, stall_s=30.0)
    service = ServicePlan(role.value, role, "node0", ("x",), "x.log", ready)
    process = SimpleNamespace(name=role.value, log=Path("/none"))
    return Wait(service, process, lambda: "no", started_s=0.0, moved_s=0.0)


def test_router_has_its_budget_from_when_the_last_worker_was_ready():
    router, worker = waiting(Role.ROUTER), waiting(Role.PREFILL)

    hold_back_routers([router, worker], 1000.0)
    assert not router.overdue(1000.0)

    hold_back_routers([router], 1020.0)
    assert not router.overdue(1020.0)
    assert "no progress for 30 s" in router.overdue(1031.0)


def test_workers_are_late_all_the_same():
    worker = waiting(Role.PREFILL)

    hold_back_routers([waiting(Role.ROUTER), worker], 1000.0)

    assert "was not ready after 60 s" in worker.overdue(1000.0)
