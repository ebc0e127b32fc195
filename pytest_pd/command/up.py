"""Bring a topology up and leave it up, or hold it until Ctrl-C.

examples:
  pytest-pd up local_1p1d --for 4h     returns once it is ready; a keeper ends it
  pytest-pd up local_1p1d              stays in the foreground until Ctrl-C
  pytest suites/ --attach RUN_ID       runs tests on it
  pytest-pd down RUN_ID                ends it early
"""

from __future__ import annotations

import argparse
import shutil
import sys
import threading
from functools import partial
from pathlib import Path

from pytest_pd.command.shared import add_place, cluster_of, roots_of
from pytest_pd.errors import SpecError
from pytest_pd.provision import BACKENDS
from pytest_pd.provision.compose import fitting, is_assumed, plan_deployment
from pytest_pd.provision.deploy import deploy
from pytest_pd.provision.duration import duration_s
from pytest_pd.provision.plan_file import write_lock
from pytest_pd.provision.progress import ProgressLine
from pytest_pd.provision.rehearse import rehearse
from pytest_pd.provision.rundir import RunDir, make_run_id, run_path
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.file import read_topology
from pytest_pd.spec.locate import find_one
from pytest_pd.spec.topology import TopologySpec


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
    add_place(parser)
    parser.add_argument(
        "--rehearse", action="store_true", help="play it here, without its hardware"
    )
    parser.add_argument("--run-dir", type=Path, help="default: runs/<utc>-<run id>")


def run(args: argparse.Namespace) -> int:
    """Bring it up, say where it is, and keep it."""
    topology, cluster = read(args)
    run_id = make_run_id()
    path = (args.run_dir or run_path(Path("runs"), run_id)).absolute()
    folder = RunDir(path / topology.name)
    progress = ProgressLine(sys.stderr)
    with deploy(
        partial(plan_deployment, topology, cluster, roots=roots_of(args)),
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
            hold(deployment.check_alive)
    return 0


def read(args: argparse.Namespace) -> tuple[TopologySpec, ClusterSpec]:
    """Read topology and cluster, and exchange them when it is a rehearsal.

    Raises:
        SpecError: a name stands for nothing, or for more than one topology.
    """
    found = find_one("topologies", [args.topology], roots_of(args))
    topology = read_topology(found.path, found.name)
    cluster = cluster_of(args)
    if args.rehearse:
        return rehearse(topology, cluster, installed=is_installed)
    place = fitting(topology, cluster)
    if is_assumed(place):
        raise SpecError(
            f"{topology.name!r} is for {' or '.join(topology.hardware_kinds)}, "
            f"cluster {cluster.name!r} has {cluster.hardware}.",
            hint="name its cluster with --cluster, or play it here with --rehearse",
        )
    return topology, place


def is_installed(program: str) -> bool:
    return shutil.which(program) is not None


def hold(check_alive: object) -> None:
    """Say so, and wait for Ctrl-C; a service that dies ends the wait.

    Raises:
        ProcessDied: a service has ended.
    """
    assert callable(check_alive)
    never = threading.Event()
    try:
        print("Ctrl-C ends it.", flush=True)
        while not never.wait(0.5):
            check_alive()
    except KeyboardInterrupt:
        print("taking it down", file=sys.stderr)
