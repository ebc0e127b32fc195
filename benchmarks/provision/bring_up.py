"""How long a rehearsed topology takes to come up and to go, here or on a real Slurm.

    python benchmarks/provision/bring_up.py k2_2p1d --times 5
    python benchmarks/provision/bring_up.py k2_2p1d --slurm 12 --times 5
    python benchmarks/provision/bring_up.py benchmarks/provision/rehearse_32p32d.yaml

``--slurm N`` starts a real Slurm of N nodes first (slurm-wlm and munge must be
installed). The figures hold the start of the reference engine and the router.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from pytest_pd.installer.paths import bin_dir, find_program  # noqa: E402
from pytest_pd.provision import BACKENDS  # noqa: E402
from pytest_pd.provision.compose import plan_deployment  # noqa: E402
from pytest_pd.provision.deploy import deploy  # noqa: E402
from pytest_pd.provision.rehearse import rehearse  # noqa: E402
from pytest_pd.provision.rundir import RunDir, make_run_id  # noqa: E402
from pytest_pd.spec.cluster import ClusterSpec  # noqa: E402
from pytest_pd.spec.file import read_topology  # noqa: E402
from pytest_pd.spec.site_slurm import SlurmSite  # noqa: E402
from tests.services_slurm import slurm_site  # noqa: E402


def place(nodes: int) -> ClusterSpec:
    """Return this machine, or the Slurm that was started on it."""
    if not nodes:
        return ClusterSpec(name="local")
    return ClusterSpec(
        name="bench",
        backend="slurm",
        hardware="gb200",
        nodes=nodes,
        gpus_per_node=4,
        lease_ttl_s=30,
        models={"kimi_k2_thinking_nvfp4": "nvidia/Kimi-K2-Thinking-NVFP4"},
        slurm=SlurmSite(partition="batch", time_limit_min=30),
    )


def once(path: Path, cluster: ClusterSpec, folder: Path) -> dict[str, float]:
    """Bring the topology up once; return seconds by stage."""
    topology, where = rehearse(
        read_topology(path), cluster, installed=lambda p: find_program(p) is not None
    )
    run_id = make_run_id()
    context = RunDir(folder / run_id / "x").context(run_id, where.lease_ttl_s)
    context.run_dir.mkdir(parents=True)
    backend = BACKENDS.get(where.backend)()
    with deploy(
        lambda site: plan_deployment(topology, where, site), backend, where, context
    ) as deployment:
        timings = deployment.timings
        ready = max(v for k, v in timings.items() if k.startswith("ready:"))
        began_s = time.monotonic()
    client = getattr(backend, "client", None)
    return {
        "allocated_s": timings["allocate"],
        "ready_s": ready,
        "total_s": timings["total"],
        "down_s": time.monotonic() - began_s,
        "slurm_queries": getattr(client, "queries", 0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topology")
    parser.add_argument("--slurm", type=int, default=0, metavar="NODES")
    parser.add_argument("--times", type=int, default=3)
    args = parser.parse_args()
    path = Path(args.topology)
    if not path.is_file():
        path = ROOT / "fixtures" / "topologies" / f"{args.topology}.yaml"
    os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], str(bin_dir())])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if args.slurm:
            site = stack.enter_context(slurm_site(folder / "slurm", args.slurm))
            stack.enter_context(site.as_default())
        load = os.getloadavg()[0]
        runs = [once(path, place(args.slurm), folder) for _ in range(args.times)]
    print(
        f"{path.stem}, {args.times} times, load before {load:.1f}, "
        f"{os.cpu_count()} CPUs"
    )
    for key in runs[0]:
        values = sorted(run[key] for run in runs)
        median = statistics.median(values)
        print(
            f"  {key:14} median {median:.2f}  from {values[0]:.2f} to {values[-1]:.2f}"
        )


if __name__ == "__main__":
    main()
