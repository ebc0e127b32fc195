"""Look at a bundle of ``pytest-pd fetch``; exit code 1 when something is missing.

examples:
  pytest-pd verify bundle                the files are those that were fetched
  pytest-pd verify bundle --offline      and they are enough, with no network

With --offline each thing that the topologies need is looked for here; pip resolves the
wheels with the bundle as its only index. Nothing is asked of any network.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from pytest_pd.bundle.book import damaged, read_book
from pytest_pd.bundle.look import look
from pytest_pd.bundle.need import needs_of
from pytest_pd.command.preflight import line_of
from pytest_pd.command.shared import add_place, cluster_of, roots_of
from pytest_pd.provision.base import Finding
from pytest_pd.spec.locate import find


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``pytest-pd verify``."""
    parser.add_argument("bundle", type=Path, metavar="DIR")
    parser.add_argument(
        "names", nargs="*", metavar="TOPOLOGY", help="default: those it was made for"
    )
    parser.add_argument("--offline", action="store_true", help="is it enough?")
    add_place(parser)


def run(args: argparse.Namespace) -> int:
    """Print one line per finding; return 1 when something is missing."""
    bad = unknown = 0
    for finding in findings(args):
        print(line_of(finding), flush=True)
        bad += finding.ok is False
        unknown += finding.ok is None
    said = f"{bad} missing" if bad else "nothing is missing"
    print(f"{said}; {unknown} to look at yourself" if unknown else said)
    return int(bad > 0)


def findings(args: argparse.Namespace) -> Iterator[Finding]:
    """Look at the files, then at what the topologies need."""
    root = args.bundle.absolute()
    book = read_book(root)
    problems = list(damaged(root, book))
    for problem in problems:
        yield Finding("file", False, problem, "fetch it again")
    if not problems:
        yield Finding("files", True, f"all {len(book['files'])} as fetched")
    if args.offline:
        roots = roots_of(args)
        found = find("topologies", args.names or book["topologies"], roots)
        yield from look(needs_of(found, cluster_of(args), roots), root)
