"""Bring a topology up and leave it up, or hold it until Ctrl-C.

examples:
  pytest-pd up local_1p1d --for 4h     returns once it is ready; a keeper ends it
  pytest-pd up local_1p1d              stays in the foreground until Ctrl-C
  pytest suites/ --attach RUN_ID       runs tests on it
  pytest-pd down RUN_ID                ends it early
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import threading
from functools import partial
from pathlib import Path

from pytest_pd.errors import SpecError
from pytest_pd.provision import BACKENDS
from pytest_pd.provision.compose import plan_deployment
from pytest_pd.provision.deploy import deploy
from pytest_pd.provision.plan_file import write_lock
from pytest_pd.provision.progress import ProgressLine
from pytest_pd.provision.rundir import RunDir, make_run_id, run_path
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.file import read_cluster, read_topology
from pytest_pd.spec.locate import find
from pytest_pd.spec.topology import TopologySpec

UNITS_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "": 1.0}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``pytest-pd up``."""
    parser.add_argument("topology", metavar="NAME|PATH")
    parser.add_argument(
        "--for",
        dest="keep_s",
        type=duration_s,
        metavar="TIME",
        help="leave it up for so long, for example 90m or 4h",
    )
    parser.add_argument("--cluster", default=os.environ.get("PD_CLUSTER", "local"))
    parser.add_argument("--run-dir", type=Path, help="default: runs/<utc>-<run id>")


def duration_s(text: str) -> float:
    """Read ``90``, ``30s``, ``1h30m``, ``2d``; seconds.

    Raises:
        ArgumentTypeError: it is none of these, or nothing.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([dhms]?)", text)
    seconds = sum(float(number) * UNITS_S[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or seconds <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 90m or 4h")
    return seconds


def run(args: argparse.Namespace) -> int:
    """Bring it up, say where it is, and keep it."""
    topology, cluster = read(args.topology, args.cluster)
    run_id = make_run_id()
    path = (args.run_dir or run_path(Path("runs"), run_id)).absolute()
    folder = RunDir(path / topology.name)
    progress = ProgressLine(sys.stderr)
    with deploy(
        partial(plan_deployment, topology, cluster),
        BACKENDS.get(cluster.backend)(),
        cluster,
        folder.context(run_id, cluster.lease_ttl_s),
        progress=progress,
        keep_s=args.keep_s,
    ) as deployment:
        progress.close()
        write_lock(folder, deployment.plan, topology, cluster)
        print(f"run {run_id}  {deployment.url}  logs {folder.logs}", flush=True)
        if args.keep_s is None:
            print("Ctrl-C ends it.", flush=True)
            hold(deployment.check_alive)
    return 0


def read(topology: str, cluster: str) -> tuple[TopologySpec, ClusterSpec]:
    """Read the two files that the names stand for.

    Raises:
        SpecError: a name stands for nothing, or for more than one topology.
    """
    (place,) = find("clusters", [cluster])
    found = find("topologies", [topology])
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise SpecError(
            f"{topology!r} stands for {len(found)} topologies: {names}.",
            hint="name one of them",
        )
    return read_topology(found[0].path, found[0].name), read_cluster(place.path)


def hold(check_alive: object) -> None:
    """Wait for Ctrl-C; a service that dies ends the wait.

    Raises:
        ProcessDied: a service has ended.
    """
    assert callable(check_alive)
    never = threading.Event()
    try:
        while not never.wait(0.5):
            check_alive()
    except KeyboardInterrupt:
        print("taking it down", file=sys.stderr)
