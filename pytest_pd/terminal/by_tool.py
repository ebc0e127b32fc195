"""``pytest-pd load --with TOOL``: what another tool is asked, and what it is not."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pytest_pd.errors import SpecError
from pytest_pd.load.external import check_demands, find_driver, run_external
from pytest_pd.load.result import LoadResult
from pytest_pd.load.target import Target
from pytest_pd.load.workload import SweepPoint, lengths_of
from pytest_pd.spec.slo import SloSpec
from pytest_pd.spec.workload import WorkloadSpec


def shards_of(args: argparse.Namespace, spec: WorkloadSpec) -> int:
    """Return how many load processes: the option's, else the workload's."""
    return int(args.shards or spec.shards)


def check_tool(
    args: argparse.Namespace,
    spec: WorkloadSpec,
    target: Target,
    points: Sequence[SweepPoint],
    slo: SloSpec | None,
) -> None:
    """Refuse what a tool of another make cannot be asked for.

    Args:
        slo: That its requests are to meet.

    Raises:
        SpecError: with what to leave out.
    """
    why = ""
    if args.header or args.api_key_env:
        why = "would show the headers on its command line"
    elif spec.kind == "trace" or spec.turns > 1:
        why = "is given lengths here, neither traces nor conversations"
    elif args.model_dir is None:
        why = "wants the model's tokenizer: give --model-dir"
    elif shards_of(args, spec) > 1 or args.engine != "auto":
        why = "sends by itself: --shards and --engine are for our own load processes"
    elif slo and slo.itl_ms and not find_driver(args.tool).has_gaps:
        why = "keeps no time per event, which an SLO of itl wants"
    if why:
        raise SpecError(f"{args.tool} {why}.", hint="leave out --with, or change that")
    for point in points:
        check_demands(args.tool, target, point.load, lengths_of(spec))


def by_tool(
    args: argparse.Namespace, spec: WorkloadSpec, point: SweepPoint, target: Target
) -> LoadResult:
    """Let the tool send one point; what it writes stays in a folder of its own.

    Raises:
        EngineMissing: the tool is not here.
        MeasurementError: it failed, or wrote nothing that can be read.
    """
    folder = (args.save or Path("load")) / f"{args.tool}-{point.label}"
    return run_external(
        args.tool,
        target,
        point.load,
        lengths_of(spec),
        tokenizer=args.model_dir,
        output=folder,
        executable=args.tool_path,
    )
