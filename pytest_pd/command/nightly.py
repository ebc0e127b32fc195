"""Run pytest for a night: time budget, retries, quarantine, and one exit code.

examples:
  pytest-pd nightly -- suites --topology local_1p1d
  pytest-pd nightly --budget 3h --quarantine quarantine.yaml --junit night.xml \\
      -- suites --cluster my_slurm --topology k2_2p1d --pd-gate nightly.gate.yaml
  pytest-pd nightly --webhook-env NIGHT_WEBHOOK -- suites --topology 'local_*'

quarantine.yaml:
  quarantine:
    - test: "suites/correctness/test_routing.py::*[topo:k2_2p1d*"
      owner: ana@example.com
      reason: the router forgets a worker, tracker issue 321
      expires: 2026-12-24

exit codes:
  0   passed
  1x  failed    x: 1 infra  2 provision  3 server  4 client  5 accuracy  6 performance
  2x  invalid   the run cannot carry a conclusion; x as above
  30  only tests in quarantine are not green
  31  a topology reached no verdict, or a test has no result (-x, --maxfail)
  32  earlier nights say that the budget is too short: nothing was started
  33  the time was over
  2   wrong arguments, an expired quarantine: nothing was started
  130 interrupted

Tests that infrastructure broke (a lost node, job or connection) are run again; a
failure of content never is. Records lie in nights/<utc>-<id>/: nightly.json,
summary.md, junit.xml.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path

from pytest_pd.nightly.night import Wishes, spend
from pytest_pd.provision.duration import duration_s


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``pytest-pd nightly``."""
    parser.add_argument(
        "--budget",
        type=duration_s,
        metavar="TIME",
        help="end after TIME, and do not begin what would take longer (3h, 90m); "
        "default: computed from earlier nights",
    )
    parser.add_argument(
        "--retries",
        type=int,
        default=1,
        metavar="N",
        help="run again what infrastructure broke, at most N times (default: 1)",
    )
    parser.add_argument(
        "--quarantine", type=Path, metavar="FILE", help="tests that may fail for now"
    )
    parser.add_argument(
        "--nights", type=Path, default=Path("nights"), metavar="DIR", help="records"
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="runs"
    )
    parser.add_argument(
        "--junit", type=Path, metavar="FILE", help="write the merged JUnit here too"
    )
    parser.add_argument(
        "--webhook-env",
        default="",
        metavar="NAME",
        help="variable with a web address that is told the verdict",
    )
    parser.add_argument(
        "words", nargs="*", metavar="-- PYTEST_ARGUMENT", help="arguments of pytest"
    )


def run(args: argparse.Namespace) -> int:
    """Spend a night; return its exit code."""
    wishes = Wishes(
        words=tuple(args.words),
        budget_s=args.budget,
        retries=max(0, args.retries),
        quarantine=args.quarantine,
        nights=args.nights,
        runs=args.runs,
        webhook=args.webhook_env,
        junit=args.junit,
    )
    return spend(wishes, _say)


def _say(line: str) -> None:
    """Print a line; a reader that left, or a full disk, ends no night."""
    with suppress(OSError):
        print(line, flush=True)
