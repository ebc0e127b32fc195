"""Look at everything that a topology needs, and start nothing.

Exit code 0 when nothing stands in its way, 1 when something does.

examples:
  pytest-pd preflight local_1p1d
  pytest-pd preflight k2_2p1d --cluster my_cluster.yaml
  pytest-pd preflight k2_2p1d --rehearse          # can it be rehearsed here?
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from pytest_pd.command.shared import add_place, cluster_of, roots_of
from pytest_pd.errors import PdError
from pytest_pd.installer.paths import find_program
from pytest_pd.plan.model import DeploymentPlan
from pytest_pd.provision import BACKENDS
from pytest_pd.provision.base import Finding, Inspector
from pytest_pd.provision.compose import fitting, is_assumed, plan_deployment
from pytest_pd.provision.preflight import harness_findings, refused
from pytest_pd.provision.reap import owner_of, survivors
from pytest_pd.provision.rehearse import rehearse
from pytest_pd.provision.rundir import find_runs, id_of, topologies_of
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.file import read_topology
from pytest_pd.spec.locate import find
from pytest_pd.spec.topology import TopologySpec

SIGNS = {True: "ok", False: "NO", None: "? "}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``pytest-pd preflight``."""
    parser.add_argument("names", nargs="+", metavar="NAME|PATH|GLOB")
    add_place(parser)
    parser.add_argument(
        "--rehearse", action="store_true", help="look at what a rehearsal needs"
    )
    parser.add_argument("--run-dir", type=Path, default=Path("runs"))


def run(args: argparse.Namespace) -> int:
    """Print one line per finding; say what to do where something is wrong."""
    cluster, roots, bad = cluster_of(args), roots_of(args), 0
    for found in find("topologies", args.names, roots):
        topology, place = read_topology(found.path, found.name), cluster
        if args.rehearse:
            topology, place = rehearse(topology, cluster, installed=is_installed)
        plan = plan_deployment(topology, place, roots=roots)
        print(f"{plan.name} on {cluster.name}")
        place = fitting(topology, place)
        if is_assumed(place):
            print(line_of(other_hardware(topology, cluster)))
            bad += 1
        for finding in findings(place, plan, args.run_dir.absolute()):
            print(line_of(finding))
            bad += finding.ok is False
    return 1 if bad else 0


def is_installed(program: str) -> bool:
    """Tell whether a program, a real router, is on this host."""
    return find_program(program) is not None


def other_hardware(topology: TopologySpec, cluster: ClusterSpec) -> Finding:
    """Say that the plan is for machines that the cluster has not."""
    return Finding(
        "hardware",
        False,
        f"the topology is for {' or '.join(topology.hardware_kinds)}, "
        f"the cluster has {cluster.hardware}",
        "name its cluster with --cluster",
    )


def findings(
    cluster: ClusterSpec, plan: DeploymentPlan, run_dir: Path
) -> Iterator[Finding]:
    """Look at the harness, the backend's limits and its nodes, in this order."""
    yield from harness_findings(plan, run_dir)
    yield from left_overs(run_dir)
    backend = BACKENDS.get(cluster.backend)()
    try:
        backend.check(cluster, [plan])
    except PdError as error:
        yield refused(error)
        return
    yield Finding("cluster", True, f"{cluster.backend} can hold the plan")
    if isinstance(backend, Inspector):
        yield from backend.preflight(cluster, plan, run_dir)


def left_overs(run_dir: Path) -> Iterator[Finding]:
    """Look for runs that nobody uses and that still have processes here."""
    for path in find_runs(root=run_dir):
        folders = topologies_of(path)
        if not any(map(owner_of, folders)) and any(map(survivors, folders)):
            yield Finding(
                f"run {id_of(path)}",
                None,
                "was killed and has left processes",
                "pytest-pd reap",
            )


def line_of(finding: Finding) -> str:
    """Return ``ok  what: said`` and the hint on a line of its own."""
    line = f"  {SIGNS[finding.ok]}  {finding.what}: {finding.said}"
    return f"{line}\n      try: {finding.hint}" if finding.hint else line
