"""How long planning takes, over sizes: median and spread of several runs.

usage: python benchmarks/plan_scale.py [--nodes 1024] [--runs 7] [--json FILE]

Plans only: no file is read, no process started. Two shapes per size: replicas of
one node each, and replicas that span two nodes, both with NODES x 8 GPUs in use.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from pytest_pd.engines.vllm import Vllm
from pytest_pd.plan.build import make_plan
from pytest_pd.routers.vllm_router import VllmRouter
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.topology import TopologySpec

GPUS = 8


def topology(nodes: int, *, spanning: bool) -> TopologySpec:
    """Half of the nodes prefill, half decode."""
    per_replica = 2 if spanning else 1
    pool = {"tp": GPUS * per_replica, "replicas": nodes // 2 // per_replica}
    return TopologySpec.model_validate(
        {
            "name": "scale",
            "hardware": "h100",
            "model": {"path": "org/model", "served_name": "m"},
            "engine": {"kind": "vllm", "env": {"CACHE": "{run_dir}/{node}"}},
            "kv_transfer": {"connector": "nixl"},
            "prefill": {**pool, "nodes_per_replica": per_replica},
            "decode": {**pool, "nodes_per_replica": per_replica},
            "router": {"kind": "vllm_router", "node": "own"},
        }
    )


def seconds(nodes: int, *, spanning: bool, runs: int) -> list[float]:
    """Plan `runs` times after one run that is not counted."""
    spec = topology(nodes, spanning=spanning)
    cluster = ClusterSpec(
        name="c", backend="slurm", hardware="h100", nodes=nodes + 1, gpus_per_node=GPUS
    )
    found = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        plan = make_plan(spec, cluster, Vllm(), VllmRouter())
        found.append(time.perf_counter() - started)
    if (len(plan.nodes), plan.gpus) != (nodes + 1, nodes * GPUS):
        sys.exit(f"wrong plan: {len(plan.nodes)} nodes, {plan.gpus} GPUs")
    return found[1:]


def main() -> None:
    """Print one line per size and shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[16, 128, 1024])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    load = os.getloadavg()[0]
    print(
        f"python {platform.python_version()}, {os.cpu_count()} cores, load {load:.1f}"
    )
    rows: list[dict[str, Any]] = []
    for nodes in args.nodes:
        for spanning in (False, True):
            samples = seconds(nodes, spanning=spanning, runs=args.runs)
            shape = "two nodes per replica" if spanning else "one node per replica"
            rows.append({"nodes": nodes, "shape": shape, "samples_s": samples})
            middle = statistics.median(samples)
            print(
                f"{nodes:5d} nodes, {shape}: median {middle:.3f} s, "
                f"min {min(samples):.3f}, max {max(samples):.3f} ({args.runs} runs)"
            )
    if args.json:
        args.json.write_text(json.dumps({"load": load, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
