"""Merge JUnit files of shards and reruns; exit code 1 when not all is green.

examples:
  pytest-pd merge shard1.xml shard2.xml --out all.xml
  pytest-pd merge first.xml rerun.xml --out all.xml      the rerun's results count

Of several results of one test the last counts, in the order of the files. One that
failed first and passed at last gets the properties flaky and first_failure. Files
without any test are not green.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_pd.report.junit import merge_junit


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``pytest-pd merge``."""
    parser.add_argument("files", nargs="+", type=Path, metavar="XML")
    parser.add_argument("--out", type=Path, required=True, metavar="XML")


def run(args: argparse.Namespace) -> int:
    """Merge, and say what came out."""
    found = merge_junit(args.files, args.out)
    print(
        f"{found.tests} tests, {found.bad} not green, {found.skipped} skipped, "
        f"{len(found.flaky)} flaky in {args.out}"
    )
    for name in found.flaky:
        print(f"flaky: {name}")
    return int(found.bad > 0 or not found.tests)
