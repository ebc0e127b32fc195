"""List the topologies that ``--topology`` knows here.

examples:
  pytest-pd topologies
  pytest-pd topologies 'vllm_*'
  pytest-pd topologies --json
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass

from pytest_pd.command.shared import add_place, cluster_of, roots_of
from pytest_pd.errors import SpecError
from pytest_pd.plan.table import summary_line
from pytest_pd.provision.compose import plan_deployment
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.file import read_topology
from pytest_pd.spec.locate import Found, Roots, find


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the list; `shape` is what is wrong where there is no plan."""

    name: str
    hardware: str
    engine: str
    router: str
    shape: str
    description: str
    path: str


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``pytest-pd topologies``."""
    parser.add_argument("names", nargs="*", default=["*"], metavar="NAME|GLOB")
    add_place(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead")


def run(args: argparse.Namespace) -> int:
    """Print one line per topology."""
    cluster, roots = cluster_of(args), roots_of(args)
    rows = [
        _row(found, cluster, roots) for found in find("topologies", args.names, roots)
    ]
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return 0
    for line in _lines(rows):
        print(line)
    return 0


def _row(found: Found, cluster: ClusterSpec, roots: Roots) -> Row:
    try:
        spec = read_topology(found.path, found.name)
    except SpecError as error:
        return Row(found.name, "?", "?", "?", error.fact, "", str(found.path))
    try:
        _, _, shape = summary_line(
            plan_deployment(spec, cluster, roots=roots)
        ).partition(": ")
    except SpecError as error:
        shape = error.fact.splitlines()[0]
    return Row(
        found.name,
        ",".join(spec.hardware_kinds),
        spec.engine.kind,
        spec.router.kind if spec.router else "-",
        shape,
        spec.description,
        str(found.path),
    )


def _lines(rows: list[Row]) -> list[str]:
    head = Row("TOPOLOGY", "HARDWARE", "ENGINE", "ROUTER", "SHAPE", "", "")
    cells = [(r.name, r.hardware, r.engine, r.router, r.shape) for r in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
