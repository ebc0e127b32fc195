"""How long topologies of real engines take until the first token: median of several.

    python benchmarks/engines/bring_up.py dynamo_mock_1p1d dynamo_mock_64p64d --times 5

Prints one JSON object per topology: seconds of each start, of each stop, memory of all
its processes when ready, and the load of the machine before each start.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import psutil

from pytest_pd.provision import BACKENDS
from pytest_pd.provision.compose import plan_deployment
from pytest_pd.provision.deploy import deploy
from pytest_pd.provision.deployment import Deployment
from pytest_pd.provision.rundir import RunDir, make_run_id
from pytest_pd.spec.file import read_cluster, read_topology
from pytest_pd.spec.locate import find


def rss_mib(deployment: Deployment) -> float:
    """Resident memory of every process of the topology, shared pages counted twice."""
    total = 0
    for process in deployment.processes.values():
        parent = psutil.Process(int(process.identity()["pid"]))
        for one in (parent, *parent.children(recursive=True)):
            total += one.memory_info().rss
    return total / 2**20


def once(name: str) -> dict[str, float]:
    (found,) = find("topologies", [name])
    (where,) = find("clusters", ["local"])
    topology, cluster = read_topology(found.path), read_cluster(where.path)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(Path(folder) / topology.name)
        with deploy(
            partial(plan_deployment, topology, cluster),
            BACKENDS.get(cluster.backend)(),
            cluster,
            run.context(make_run_id(), cluster.lease_ttl_s),
        ) as deployment:
            ready_s, memory = deployment.timings["total"], rss_mib(deployment)
            begun_s = time.monotonic()
        stop_s = time.monotonic() - begun_s
    return {"ready_s": ready_s, "stop_s": stop_s, "rss_mib": memory, "load": load}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topologies", nargs="+")
    parser.add_argument("--times", type=int, default=5)
    args = parser.parse_args()
    for name in args.topologies:
        rows = [once(name) for _ in range(args.times)]
        print(
            json.dumps(
                {
                    "topology": name,
                    **{
                        key: {
                            "median": round(statistics.median(r[key] for r in rows), 2),
                            "min": round(min(r[key] for r in rows), 2),
                            "max": round(max(r[key] for r in rows), 2),
                        }
                        for key in rows[0]
                    },
                    "times": args.times,
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
