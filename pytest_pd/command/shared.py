"""What commands that name topologies and a cluster have in common."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.file import read_cluster
from pytest_pd.spec.locate import Roots, find_one


def add_place(parser: argparse.ArgumentParser) -> None:
    """Add ``--cluster`` and ``--search``."""
    parser.add_argument(
        "--cluster",
        default=os.environ.get("PD_CLUSTER") or "local",
        metavar="NAME|PATH",
        help="cluster file; default: PD_CLUSTER, else local",
    )
    parser.add_argument(
        "--search",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="further folder with topologies/ and clusters/ (repeatable)",
    )


def roots_of(args: argparse.Namespace) -> Roots:
    """Return where names are looked up."""
    return Roots(ini=tuple(args.search))


def cluster_of(args: argparse.Namespace) -> ClusterSpec:
    """Return the cluster that the options name.

    Raises:
        SpecError: they name none or several, or something in its file is wrong.
    """
    return read_cluster(find_one("clusters", [args.cluster], roots_of(args)).path)
