"""What `k2_2p1d` becomes on the shipped GB200 and H100 clusters: sbatch and srun.

``PD_UPDATE_GOLDEN=1 pytest tests/golden`` writes the files anew: read the diff.
"""

import os
from pathlib import Path

import pytest

from pytest_pd.provision.compose import plan_deployment
from pytest_pd.provision.slurm_text import (
    JobRequest,
    batch_argv,
    batch_script,
    step_argv,
    step_name,
    watchman_script,
)
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.file import read_cluster, read_topology
from pytest_pd.spec.locate import Roots

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
FULL_SITE = {
    "partition": "batch",
    "account": "me",
    "qos": "high",
    "constraint": "gb200",
    "segment": "all",
    "mpi": "none",
    "whole_memory": True,
    "cpus_per_node": 144,
    "container": {
        "image": "/img/vllm.sqsh",
        "mounts": ["/lustre:/lustre"],
        "flags": ["--no-container-mount-home"],
    },
    "sbatch_flags": ["--licenses=x"],
    "srun_flags": ["--unbuffered"],
}


def shipped(name: str) -> ClusterSpec:
    return read_cluster(PROJECT / "fixtures" / "clusters" / f"{name}.yaml")


def full() -> ClusterSpec:
    given = shipped("gb200_slurm").model_dump()
    return ClusterSpec.model_validate({**given, "slurm": FULL_SITE})


CASES = {
    "k2_2p1d.gb200_slurm": ("k2_2p1d", lambda: shipped("gb200_slurm")),
    "k2_2p1d.every_switch": ("k2_2p1d", full),
}


def rendered(topology: str, cluster: ClusterSpec) -> str:
    spec = read_topology(PROJECT / "fixtures" / "topologies" / f"{topology}.yaml")
    plan = plan_deployment(spec, cluster, roots=Roots(PROJECT))
    request = JobRequest(
        f"pd-r1-{topology}", "r1", 7, 4, "/runs/r1/slurm", "/runs/r1/lease", 120.0
    )
    lines = [*batch_argv(cluster.slurm, request), "", batch_script(request)]
    for service in plan.services:
        words = step_argv(
            cluster.slurm,
            "4711",
            f"host-of-{service.node}",
            service,
            name=step_name(f"r1/{topology}/{service.name}"),
            node_gpus=4,
            folder="/runs/r1",
            command=("python3", "-S", "-E", "/runs/r1/slurm/launcher.py"),
        )
        lines += ["", *words]
    return "\n".join([*lines, "", watchman_script(request)])


@pytest.mark.parametrize("name", sorted(CASES))
def test_words_are_those_of_the_file(name):
    topology, cluster = CASES[name]
    file = HERE / "slurm" / f"{name}.txt"
    text = rendered(topology, cluster())
    if os.environ.get("PD_UPDATE_GOLDEN"):
        file.write_text(text, encoding="utf-8")

    assert text == file.read_text(encoding="utf-8")


def test_the_h100_cluster_is_whole():
    cluster = shipped("h100_slurm")

    assert cluster.slurm.gpus_by == "gpus-per-node"
    assert cluster.node_gpus == (8,) * 16
