"""Real engines in tests: brought up through the same code as any topology."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from pytest_pd.installer.paths import find_program
from pytest_pd.plan.model import Endpoint
from pytest_pd.provision.base import RunContext
from pytest_pd.provision.compose import engine_of, plan_deployment, router_of
from pytest_pd.provision.deploy import deploy
from pytest_pd.provision.deployment import Deployment
from pytest_pd.provision.local import LocalBackend
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.file import read_topology
from pytest_pd.spec.locate import Roots
from pytest_pd.spec.topology import TopologySpec
from tests.services import require

PROJECT = Path(__file__).parents[1]
LAPTOP = ClusterSpec(name="local")


def spec_of(name: str) -> TopologySpec:
    return read_topology(PROJECT / "fixtures" / "topologies" / f"{name}.yaml")


def needs(service: str, topology: TopologySpec) -> None:
    """Skip, or fail where `service` is required, if a program is not here."""
    router = router_of(topology)
    programs = [*engine_of(topology).programs(topology)]
    programs += router.programs(topology) if router else []
    for program in programs:
        if find_program(program.name) is None:
            require(service, f"{program.name} is not here: {program.install}")


@contextmanager
def brought_up(topology: TopologySpec, run_dir: Path) -> Iterator[Deployment]:
    """Yield the topology, up, its run directory below `run_dir`."""
    place = run_dir / topology.name
    place.mkdir(parents=True)
    context = RunContext(run_dir.name, place, place / "lease", LAPTOP.lease_ttl_s)
    with deploy(
        lambda site: plan_deployment(topology, LAPTOP, site, roots=Roots(PROJECT)),
        LocalBackend(),
        LAPTOP,
        context,
    ) as deployment:
        yield deployment


def complete(where: Endpoint | Deployment, prompt: object, **body: object) -> dict:
    """Ask for a greedy completion and return the whole answer."""
    request = {
        "model": "tiny",
        "prompt": prompt,
        "max_tokens": 16,
        "temperature": 0,
        **body,
    }
    answer = httpx.post(
        f"{where.url}/v1/completions", json=request, timeout=120, trust_env=False
    )
    answer.raise_for_status()
    found: dict = answer.json()
    return found


def text_of(answer: dict) -> str:
    text: str = answer["choices"][0]["text"]
    return text


def until_dead(deployment: Deployment, *, deadline_s: float = 90.0) -> None:
    """Ask until the deployment says that a service died; fail if it never does."""
    end_s = time.monotonic() + deadline_s
    while time.monotonic() < end_s:
        deployment.check_alive()
        time.sleep(0.05)
    raise AssertionError(f"nothing died within {deadline_s:g} s")
