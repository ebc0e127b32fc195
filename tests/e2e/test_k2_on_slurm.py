"""Kimi K2 2P1D from one command: against a real Slurm, with real vllm-router."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pytest_pd.installer.paths import bin_dir, find_program
from tests.e2e.slurm_kit import (
    RACK,
    ROOT,
    STAND_IN,
    green,
    running_slurm,
    vllm_stand_in,
)
from tests.services import require


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with running_slurm(tmp_path_factory.mktemp("slurm"), 12) as made:
        yield made


@pytest.fixture
def cluster_file(tmp_path):
    if find_program("vllm-router") is None:
        require("vllm-router", "pytest-pd engines install vllm-router")
    path = tmp_path / "rack.yaml"
    path.write_text(yaml.safe_dump(RACK))
    return path


@pytest.fixture
def vllm(tmp_path):
    """Put a ``vllm`` on PATH that computes with the small model, on any machine."""
    return vllm_stand_in(tmp_path)


def run_suites(tmp_path, *words, path=()):
    """Run the suites as a user does; returns the process and the run directory."""
    run_dir = tmp_path / "run"
    places = [*map(str, path), str(bin_dir()), os.environ["PATH"]]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, "--run-dir", str(run_dir), "-q"],
        cwd=ROOT,
        env={**os.environ, "PATH": os.pathsep.join(places)},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    return done, run_dir


def test_the_line_of_the_card(site, tmp_path, cluster_file, vllm):
    cluster_file.write_text(yaml.safe_dump({**RACK, **STAND_IN}))
    done, run_dir = run_suites(
        tmp_path,
        *("suites/", "-m", "gb200", "--topology", "k2_2p1d"),
        *("-o", f"pd_cluster={cluster_file}"),
        path=[vllm],
    )

    green(done, run_dir)
    assert site.jobs() == []
    logs = run_dir / "k2_2p1d@rehearsal" / "logs"
    assert {
        "prefill-node0-pd.log",
        "prefill-node1-pd.log",
        "decode-master-pd.log",
        "decode-worker-pd-4.log",
        "router.log",
        "bench.log",
    } <= {path.name for path in logs.iterdir()}
    router = (logs / "router.log").read_text(errors="replace")
    addresses = [site.address(f"n{number:02}") for number in range(1, 7)]
    assert [a for a in addresses if f"http://{a}:8087" not in router] == []
    told = (logs / "bench.log").read_text()
    assert "local_sweep c4: sent from the cluster: 24 ok" in told


def test_a_rehearsal_runs_through_sbatch_and_srun(site, tmp_path, cluster_file):
    done, run_dir = run_suites(
        tmp_path,
        *("suites/correctness/test_handover.py", "suites/correctness/test_routing.py"),
        *("--topology", "k2_2p1d", "--rehearse", "--cluster", str(cluster_file)),
    )

    assert done.returncode == 0, done.stdout[-4000:]
    assert site.jobs() == []
    plan = json.loads((run_dir / "k2_2p1d@rehearsal" / "plan.json").read_text())
    assert plan["rehearsal"]
    assert len(plan["nodes"]) == 7


def test_the_plan_is_printed_without_a_cluster(tmp_path):
    done, run_dir = run_suites(
        tmp_path,
        "suites",
        "--topology",
        "k2_2p1d",
        "--cluster",
        "gb200_slurm",
        "--pd-plan",
    )

    assert done.returncode == 0, done.stderr
    assert "k2_2p1d: 7 nodes, 24 GPUs, 6 endpoints" in done.stdout
    assert not Path(run_dir).exists()


def test_too_few_nodes_of_the_kind_are_refused_before_anything_starts(
    site, tmp_path, cluster_file
):
    given = {**RACK, "slurm": {**RACK["slurm"], "constraint": "gb300"}}
    cluster_file.write_text(yaml.safe_dump(given))
    done, _ = run_suites(
        tmp_path,
        *("suites/correctness/test_handover.py", "--topology", "k2_2p1d", "--rehearse"),
        *("--cluster", str(cluster_file)),
    )

    assert done.returncode != 0
    assert "needs 7 nodes; there are 12 nodes in partition 'batch'" in done.stdout
    assert "4 of them with feature 'gb300'" in done.stdout
    assert site.jobs() == []


def test_two_topologies_side_by_side_share_no_node(site, tmp_path, cluster_file):
    given = {**RACK, "nodes": 5, "slurm": {**RACK["slurm"], "constraint": None}}
    cluster_file.write_text(yaml.safe_dump(given))
    done, run_dir = run_suites(
        tmp_path,
        *("suites/correctness/test_api.py::test_model_is_listed", "-n", "2"),
        *("--topology", "local_1p1d,local_2p1d", "--rehearse"),
        *("--cluster", str(cluster_file)),
    )

    assert done.returncode == 0, done.stdout[-4000:]
    hosts = {
        name: {
            json.loads(path.read_text())["host"]
            for path in (run_dir / f"{name}@rehearsal" / "state").glob("*.started.json")
        }
        for name in ("local_1p1d", "local_2p1d")
    }
    assert all(hosts.values())
    assert hosts["local_1p1d"].isdisjoint(hosts["local_2p1d"])
