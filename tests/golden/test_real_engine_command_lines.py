"""Command line, environment and readiness of every process of a real engine.

``PD_UPDATE_GOLDEN=1 pytest tests/golden`` writes the files anew: read the diff.
"""

import os
from pathlib import Path

import pytest

from pytest_pd.plan.model import DeploymentPlan, ServicePlan, SiteFacts
from pytest_pd.provision.compose import plan_deployment
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.file import read_topology
from pytest_pd.spec.locate import Roots

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
LAPTOP = {"nodes": 1, "gpus_per_node": 0, "hardware": "cpu"}
SITE = SiteFacts(run_dir="/runs/r1", run_id="r1", python="/usr/bin/python3")

CASES = {
    "vllm_cpu_aggregated": LAPTOP,
    "vllm_cpu_1p1d_shared": LAPTOP,
    "vllm_cpu_1p1d_nixl": LAPTOP,
    "vllm_cpu_2p1d_nixl": LAPTOP,
    "qwen3_4b_1p1d_shared": {"nodes": 1, "gpus_per_node": 2, "hardware": "h100"},
    "dynamo_mock_1p1d": LAPTOP,
    "dynamo_mock_etcd_1p1d": LAPTOP,
    "dynamo_mock_2p2d": LAPTOP,
    "dynamo_mock_64p64d": LAPTOP,
    "dynamo_mock_aggregated": LAPTOP,
    "dynamo_70b_tp2dp6_tp4dp1": {"nodes": 2, "gpus_per_node": 8, "hardware": "h100"},
    "dynamo_70b_8gpu": {"nodes": 1, "gpus_per_node": 8, "hardware": "h100"},
    "dynamo_70b_8gpu_aggregated": {"nodes": 1, "gpus_per_node": 8, "hardware": "h100"},
    "dynamo_8b_2gpu": {"nodes": 1, "gpus_per_node": 2, "hardware": "h100"},
}


def planned(name: str, machine: dict) -> DeploymentPlan:
    topology = read_topology(PROJECT / "fixtures" / "topologies" / f"{name}.yaml")
    cluster = ClusterSpec(name="golden", **machine)
    return plan_deployment(topology, cluster, SITE, roots=Roots(PROJECT))


def rendered(plan: DeploymentPlan) -> str:
    lines = [f"note: {note}" for note in plan.notes]
    for service in plan.services:
        lines += ["", *_service(service)]
    return "\n".join(lines).replace(str(PROJECT), "PROJECT") + "\n"


def _service(service: ServicePlan) -> list[str]:
    ports = " ".join(f"{name}={port}" for name, port in service.ports.items())
    head = f"[{service.name}] {service.node} gpus={list(service.gpu_ids)} {ports}"
    env = [f"  {name}={value}" for name, value in sorted(service.env.items())]
    words = _flag_lines(service.argv)
    unset = f"  unset: {' '.join(service.env_unset)}"
    ready = service.ready
    after = f"  after: {' '.join(service.after)}" if service.after else "  after: -"
    return [
        head,
        *env,
        unset,
        *words,
        f"  ready: {ready.kind} {ready.target} {ready.body}".rstrip(),
        after,
    ]


def _flag_lines(argv: tuple[str, ...]) -> list[str]:
    """One flag with its values per line: a diff then shows one flag."""
    lines = [f"  $ {argv[0]}"]
    for word in argv[1:]:
        if word.startswith("-"):
            lines.append(f"    {word}")
        else:
            lines[-1] += f" {word}"
    return lines


@pytest.mark.parametrize("name", CASES)
def test_processes_are_as_recorded(name: str) -> None:
    golden = HERE / "engines" / f"{name}.txt"
    found = rendered(planned(name, CASES[name]))

    if os.environ.get("PD_UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(found)

    assert found == golden.read_text()


def test_every_topology_of_a_real_engine_has_a_recording() -> None:
    files = (PROJECT / "fixtures" / "topologies").glob("*.yaml")
    mine = {
        file.stem
        for file in files
        if file.stem.startswith(("vllm_", "dynamo_", "qwen3_"))
    }

    assert mine - CASES.keys() == {"vllm_cpu_1p1d_nixl_proxy", "dynamo_mock_8p8d"}
