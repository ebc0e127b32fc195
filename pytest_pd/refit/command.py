"""Plan and run weight refits: move a model from one parallel layout to another.

examples:
  pytest-pd refit plan kimi_k2                   all scenarios: bytes, bound, verdict
  pytest-pd refit plan kimi_k2 -s 6 --cluster gb200_nvl72 --picture six.svg
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pytest_pd.errors import SpecError
from pytest_pd.refit import files


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    plan = actions.add_parser("plan", help="bytes, bounds and verdicts; runs nothing")
    _scenario_options(plan)
    plan.add_argument("--cluster", default="h100_ib", help="speeds (default: h100_ib)")
    plan.add_argument("--dtype", help="bf16, fp8, nvfp4; default: as in the file")
    plan.add_argument("--choice", default="megatron", help="megatron or nearest")
    plan.add_argument("--back", action="store_true", help="plan the way back too")
    plan.add_argument("--picture", type=Path, metavar="FILE", help=".svg or .png")


def _scenario_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="file of fixtures/refit, or a path")
    parser.add_argument(
        "-s", "--scenario", action="append", default=[], metavar="N", help="1 or 1,6"
    )


def run(args: argparse.Namespace) -> int:
    """Do what was asked; 0 if all is well."""
    return {"plan": _plan}[args.action](args)


def _plan(args: argparse.Namespace) -> int:
    from pytest_pd.refit import picture, table
    from pytest_pd.refit.plan import make_plan
    from pytest_pd.spec.refit import DTYPE_BYTES, RefitScenario

    spec = files.read_refit(args.name)
    cluster = files.read_refit_cluster(args.cluster)
    scenarios = list(files.pick(spec, files.parse_ids(args.scenario)))
    if args.dtype is not None:
        if args.dtype not in DTYPE_BYTES:
            raise SpecError.unknown("dtype", args.dtype, DTYPE_BYTES)
        change = {"dtype": args.dtype}
        scenarios = [RefitScenario(**{**dict(s), **change}) for s in scenarios]
    if args.back:
        scenarios = [way for s in scenarios for way in (s, s.reversed())]
    plans = [make_plan(spec.model, s, cluster, choice=args.choice) for s in scenarios]
    text = table.page(plans[0]) if len(plans) == 1 else table.overview(plans)
    sys.stdout.write(text + "\n")
    if args.picture:
        if len(plans) != 1:
            raise SpecError("a picture shows one scenario.", hint="add -s N")
        picture.save(plans[0], args.picture)
        sys.stdout.write(f"picture: {args.picture}\n")
    return 0
