"""Print what a topology would start, and start nothing.

examples:
  pytest-pd plan local_1p1d
  pytest-pd plan k2_2p1d --commands
  pytest-pd plan 'local_*' --json
  pytest-pd plan k2_2p1d --cluster my_cluster.yaml --lock plan.lock.yaml
  pytest-pd plan llama31_8b_8p8d --manifests out/     what kubectl would apply
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path

from pytest_pd.command.shared import add_place, cluster_of, roots_of
from pytest_pd.errors import SpecError
from pytest_pd.plan.lock import lock_text, plan_data
from pytest_pd.plan.model import DeploymentPlan, SiteFacts
from pytest_pd.plan.table import render
from pytest_pd.provision.compose import fitting, plan_deployment
from pytest_pd.provision.kubernetes.write import write_manifests
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.file import read_topology
from pytest_pd.spec.locate import Roots, find
from pytest_pd.spec.topology import TopologySpec


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``pytest-pd plan``."""
    parser.add_argument("names", nargs="+", metavar="NAME|PATH|GLOB")
    add_place(parser)
    parser.add_argument(
        "--commands", action="store_true", help="show commands and environments"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead")
    parser.add_argument(
        "--lock", type=Path, metavar="FILE", help="write plan.lock.yaml to FILE"
    )
    parser.add_argument(
        "--manifests",
        type=Path,
        metavar="DIR",
        help="write what would be applied to Kubernetes to DIR, secrets left out",
    )


def planned(
    spec: TopologySpec, cluster: ClusterSpec, roots: Roots, site: SiteFacts
) -> DeploymentPlan:
    """Return the plan for given facts of a site."""
    return plan_deployment(spec, cluster, site, roots=roots)


def run(args: argparse.Namespace) -> int:
    """Print one plan per topology."""
    cluster, roots = cluster_of(args), roots_of(args)
    specs = [
        read_topology(found.path, found.name)
        for found in find("topologies", args.names, roots)
    ]
    plans = [plan_deployment(spec, cluster, roots=roots) for spec in specs]
    if args.lock:
        if len(plans) != 1:
            raise SpecError(f"--lock holds one plan, and {len(plans)} are asked for.")
        text = lock_text(plans[0], specs[0], fitting(specs[0], cluster))
        args.lock.write_text(text, encoding="utf-8")
    if args.manifests:
        for spec in specs:
            make = partial(planned, spec, cluster, roots)
            write_manifests(args.manifests, make, fitting(spec, cluster))
    if args.json:
        json.dump([plan_data(plan) for plan in plans], sys.stdout, indent=2)
        print()
    else:
        print("\n".join(render(plan, commands=args.commands) for plan in plans), end="")
    return 0
