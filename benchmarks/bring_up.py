"""How long does a topology of this machine take to come up and to go down?

    python benchmarks/bring_up.py local_1p1d --count 10

Up is from `deploy` to the first token through the router; the stages are medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from pytest_pd.provision.compose import plan_deployment
from pytest_pd.provision.deploy import deploy
from pytest_pd.provision.local import LocalBackend
from pytest_pd.provision.rundir import RunDir, make_run_id
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.file import read_topology
from pytest_pd.spec.locate import find


def once(name: str, folder: Path) -> dict[str, float]:
    """Return seconds of each stage, of ``up`` and of ``down``."""
    (found,) = find("topologies", [name])
    topology = read_topology(found.path, found.name)
    cluster = ClusterSpec(name="local")
    context = RunDir(folder / name).context(make_run_id(), cluster.lease_ttl_s)
    make_plan = partial(plan_deployment, topology, cluster)
    with deploy(make_plan, LocalBackend(), cluster, context) as deployment:
        timings = dict(deployment.timings)
        begun_s = time.perf_counter()
    return {**timings, "down": time.perf_counter() - begun_s}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topology", nargs="?", default="local_1p1d")
    parser.add_argument("--count", type=int, default=10)
    args = parser.parse_args()
    found = []
    for _ in range(args.count):
        with tempfile.TemporaryDirectory() as folder:
            found.append(once(args.topology, Path(folder)))
    for stage in found[0]:
        values = [each[stage] for each in found]
        print(
            f"{stage:>16} {statistics.median(values):6.2f} s (median of {len(values)})"
            f"  {min(values):.2f} to {max(values):.2f} s"
        )
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
