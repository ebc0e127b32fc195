"""One row per backend: how a test gets a place where it can really start things.

A row is a context manager that gets a scratch folder and yields a `Place`, or
skips with the command that installs what is missing (`tests.services.require`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pytest_pd.provision.identity import marked_with
from pytest_pd.spec.cluster import ClusterSpec


def here(run_id: str) -> list[int]:
    """Return the processes of a run on this machine."""
    return list(marked_with(f"{run_id}/"))


@dataclass(frozen=True)
class Place:
    """A cluster that is up.

    Attributes:
        root: Where run directories may lie, so that nodes see them.
        alive: Run id to whatever still lives of it; empty when nothing does.
        slack_s: What may pass after the TTL until everything is gone.
        nodes: Nodes that a plan may use.
    """

    cluster: ClusterSpec
    root: Path
    alive: Callable[[str], list] = here
    slack_s: float = 15.0
    nodes: int = 2


@contextmanager
def local(folder: Path) -> Iterator[Place]:
    yield Place(ClusterSpec(name="contract", lease_ttl_s=3.0), folder)


ROWS: dict[str, Callable[[Path], AbstractContextManager[Place]]] = {
    "local": local,
}
