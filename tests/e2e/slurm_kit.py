"""What tests on a real Slurm share: a site per module, sessions on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_pd.probe.logs import read_text
from pytest_pd.provision.lease import held
from pytest_pd.provision.rundir import RunDir, make_run_id
from pytest_pd.provision.slurm import SlurmBackend
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.site_slurm import SlurmSite
from tests import services_slurm
from tests.kit import plan_of, python, wait_until
from tests.services import require
from tests.services_slurm import SlurmSite as RunningSlurm
from tests.services_slurm import slurm_site

ROOT = Path(__file__).parents[2]
RACK = {
    "name": "rack",
    "backend": "slurm",
    "hardware": "gb200",
    "nodes": 8,
    "gpus_per_node": 4,
    "lease_ttl_s": 20,
    "models": {"kimi_k2_thinking_nvfp4": "nvidia/Kimi-K2-Thinking-NVFP4"},
    "slurm": {"partition": "batch", "time_limit_min": 20, "constraint": "gb200"},
}
"""Content of a cluster file for the Slurm of these tests."""
TINY = ROOT / "fixtures" / "models" / "tiny"
STAND_IN = {"stand_in": True, "models": {"kimi_k2_thinking_nvfp4": str(TINY)}}
"""What such a file says where `vllm_stand_in` is on PATH."""
VLLM = """\
#!/bin/sh
exec {python} -m pytest_pd.reference "$@" --rehearse-model {model}
"""
SLEEPER = "import time; print('up', flush=True); time.sleep(600)"


def vllm_stand_in(folder: Path) -> Path:
    """Make a ``vllm`` that computes with the small model; returns its folder."""
    program = folder / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(VLLM.format(python=sys.executable, model=TINY))
    program.chmod(0o755)
    return program.parent


@contextmanager
def running_slurm(folder: Path, nodes: int, **options):
    """Yield a real Slurm that commands of this process talk to."""
    if why := services_slurm.missing():
        require("slurm", why)
    with slurm_site(folder, nodes, **options) as site, site.as_default():
        yield site


def green(done, run_dir: Path) -> None:
    """Assert that no test of a run is red.

    A busy machine may make figures of load invalid, and the run then says so.
    """
    lines = (run_dir / "results.jsonl").read_text().splitlines()
    ends = [(row["verdict"], row["nodeid"]) for row in map(json.loads, lines)]
    bad = [end for end in ends if end[0] not in ("passed", "skipped")]
    assert ends
    assert [e for e in bad if e[0] != "invalid" or "/performance/" not in e[1]] == []
    assert done.returncode == (1 if bad else 0), done.stdout[-4000:] + done.stderr


def cluster(ttl_s: float = 5.0, **site) -> ClusterSpec:
    """Return a cluster file's content for that Slurm."""
    return ClusterSpec(
        name="e2e",
        backend="slurm",
        hardware="gb200",
        nodes=4,
        gpus_per_node=4,
        lease_ttl_s=ttl_s,
        slurm=SlurmSite(**{"partition": "batch", "time_limit_min": 10, **site}),
    )


@dataclass
class Session:
    """One allocation, and what tests ask of it."""

    site: RunningSlurm
    backend: SlurmBackend
    run: RunDir
    run_id: str
    allocation: object

    def start(self, name: str = "one", node: str = "node0", code: str = SLEEPER):
        """Start a service and wait until it says that it is up."""
        process = self.allocation.start(python(name, code, node=node))
        wait_until(lambda: "up" in read_text(process.log), f"start of {name}")
        return process


@contextmanager
def session(site, root: Path, place: ClusterSpec, nodes: int = 1, gpus: int = 0):
    """Yield an allocation of some nodes, under a lease."""
    run_id = make_run_id()
    run = RunDir(root / run_id / "toy")
    run.create()
    backend = SlurmBackend()
    plan = plan_of(
        [python(f"s{n}", SLEEPER, node=f"node{n}") for n in range(nodes)], nodes=nodes
    )
    planned = tuple(replace(n, gpus=gpus, gpus_used=gpus) for n in plan.nodes)
    plan = replace(plan, nodes=planned)
    with (
        held(run.lease, place.lease_ttl_s),
        backend.allocate(
            place, plan, run.context(run_id, place.lease_ttl_s)
        ) as allocation,
    ):
        yield Session(site, backend, run, run_id, allocation)


@contextmanager
def busy(site, nodes: int):
    """Occupy nodes with a job of somebody else."""
    job = site.client(
        *(
            "sbatch",
            "--parsable",
            f"--nodes={nodes}",
            "--exclusive",
            "--output=/dev/null",
        ),
        *("--wrap", "sleep 600"),
    ).strip()
    wait_until(
        lambda: site.client("squeue", "-h", "-j", job, "-o", "%T").strip() == "RUNNING",
        "the other job",
    )
    try:
        yield job
    finally:
        site.client("scancel", job, check=False)


@contextmanager
def harness(place: ClusterSpec, run: RunDir, run_id: str):
    """Run a harness in a process of its own, that tests may kill."""
    words = [
        *(sys.executable, "-m", "tests.contract.harness_child"),
        place.model_dump_json(exclude_unset=True),
        *(str(run.path), run_id),
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=env) as child:
        try:
            yield child
        finally:
            child.kill()
