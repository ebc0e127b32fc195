"""What tests of provisioning share: toy services, plans of them, waiting."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pytest_pd.plan.model import (
    DeploymentPlan,
    Endpoint,
    ExpectedEvidence,
    NodePlan,
    ReadyPlan,
    Role,
    ServicePlan,
    SiteFacts,
)

TOY = Path(__file__).with_name("toy_service.py")
DEADLINE_S = 60.0
ROLES = {
    "prefill-0": Role.PREFILL,
    "decode-0": Role.DECODE,
    "router": Role.ROUTER,
}


def wait_until(
    condition: Callable[[], object], what: str, *, deadline_s: float = DEADLINE_S
) -> None:
    """Return when `condition` holds; fail naming `what` after a generous time."""
    end_s = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end_s, f"{what}: not within {deadline_s:g} s"
        time.sleep(0.02)


def service(name: str, *argv: str, **fields) -> ServicePlan:
    """Plan one process whose readiness nobody asks for."""
    given = {"node": "node0", "ready": ReadyPlan("started", ""), **fields}
    return ServicePlan(
        name=name, role=Role.PREFILL, argv=argv, log=f"logs/{name}.log", **given
    )


def python(name: str, code: str, *words: str, **fields) -> ServicePlan:
    """Plan a Python program given as text."""
    return service(name, sys.executable, "-S", "-E", "-c", code, *words, **fields)


def plan_of(
    services: Sequence[ServicePlan],
    *,
    nodes: int = 1,
    endpoints: Sequence[Endpoint] = (),
    addresses: Mapping[str, str] | None = None,
) -> DeploymentPlan:
    """Wrap services into a plan that says nothing else."""
    names = [f"node{index}" for index in range(nodes)]
    known = addresses or {}
    return DeploymentPlan(
        name="toy",
        identity="0",
        hardware="cpu",
        engine="toy",
        router="toy",
        served_model="toy",
        model_path="",
        nodes=tuple(NodePlan(name, known.get(name, name), 0, 0) for name in names),
        services=tuple(services),
        endpoints=tuple(endpoints),
        expected=ExpectedEvidence(None, None, "none", whole_blocks=True),
    )


def free_ports(count: int) -> list[int]:
    """Return ports that are free now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def toy_topology(
    extra: Mapping[str, Sequence[str]] | None = None,
    *,
    budgets_s: Mapping[str, float] | None = None,
    stalls_s: Mapping[str, float] | None = None,
    ports: Sequence[int] = (),
    fixed: bool = False,
) -> Callable[[SiteFacts], DeploymentPlan]:
    """Return the plan function of prefill, decode and a router after both.

    Args:
        extra: Service name to further words on its command line; `budgets_s` and
            `stalls_s` to what readiness may take, a minute where absent.
        fixed: The ports stay, even when they are taken.
    """
    wanted = list(ports) or free_ports(3)

    def make_plan(facts: SiteFacts) -> DeploymentPlan:
        address = facts.addresses.get("node0", "node0")
        services, endpoints = [], []
        for (name, role), port in zip(ROLES.items(), wanted, strict=True):
            while ("node0", port) in facts.busy and not fixed:
                port += 1
            url = f"http://{address}:{port}"
            words = [facts.python, "-S", "-E", str(TOY), str(port)]
            services.append(
                ServicePlan(
                    name=name,
                    role=role,
                    node="node0",
                    argv=(*words, *(extra or {}).get(name, ())),
                    log=f"logs/{name}.log",
                    ready=ReadyPlan(
                        "http",
                        f"{url}/health",
                        (budgets_s or {}).get(name, 60.0),
                        (stalls_s or {}).get(name, 60.0),
                    ),
                    ports={"http": port},
                    after=("prefill-0", "decode-0") if role is Role.ROUTER else (),
                    stop_grace_s=5.0,
                )
            )
            endpoints.append(Endpoint(name, role, url, metrics_url=f"{url}/metrics"))
        return plan_of(services, endpoints=endpoints, addresses=facts.addresses)

    return make_plan
