"""Words that a shell offers after TAB: names of topologies, clusters, runs, engines.

Looked up when TAB is pressed; the library (argcomplete) and the shell do the rest.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

Completer = Callable[..., Iterable[str]]


def topologies(prefix: str = "", **_: object) -> list[str]:
    """Return the names of topologies; after a comma those that are still missing."""
    head, comma, last = prefix.rpartition(",")
    known = [name for name in _names("topologies") if name.startswith(last)]
    return [f"{head}{comma}{name}" for name in known if name not in head.split(",")]


def clusters(prefix: str = "", **_: object) -> list[str]:
    """Return the names of clusters."""
    return [name for name in _names("clusters") if name.startswith(prefix)]


def run_ids(prefix: str = "", **_: object) -> list[str]:
    """Return the ids of the runs below ``runs/``, newest first."""
    from pytest_pd.provision.rundir import id_of, runs_below

    found = [id_of(path) for path in reversed(list(runs_below(Path("runs"))))]
    return [run_id for run_id in found if run_id.startswith(prefix)]


def engines(prefix: str = "", **_: object) -> list[str]:
    """Return the names of engines that can be installed."""
    from pytest_pd.installer.recipe import RECIPES

    return [name for name in RECIPES if name.startswith(prefix)]


def _names(kind: str) -> list[str]:
    from pytest_pd.spec.locate import catalogue

    return sorted(catalogue(kind))


BY_DEST: dict[str, Completer] = {
    "names": topologies,
    "topology": topologies,
    "cluster": clusters,
    "run_id": run_ids,
}
"""Destination of an argument of ``pytest-pd`` to what it takes."""
OF_ENGINES = "engines"
"""Command whose names are engines."""


def add_completers(parser: argparse.ArgumentParser, command: str) -> None:
    """Tell each argument of a command what it takes, sub-commands included."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                add_completers(below, command)
        elif found := BY_DEST.get(action.dest):
            action.completer = (  # type: ignore[attr-defined]
                engines if command == OF_ENGINES else found
            )


class AppendTopology(argparse.Action):
    """``action="append"`` for names of topologies, which a shell can complete."""

    completer = staticmethod(topologies)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        known = getattr(namespace, self.dest, None) or []
        setattr(namespace, self.dest, [*known, values])


class StoreCluster(argparse.Action):
    """``action="store"`` for the name of a cluster, which a shell can complete."""

    completer = staticmethod(clusters)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, values)
