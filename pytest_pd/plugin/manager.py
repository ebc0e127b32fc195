"""Topologies of one process: each up once, shared by its tests, down when done.

Lifetimes do not hang on fixtures: pytest ends a parametrized session fixture as
soon as the order of tests changes (``--ff``, shuffling), and counts its time
against the first test. The manager brings a topology up before its first test
and takes it down after its last one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pytest_pd.errors import ProvisionError
from pytest_pd.plugin.verdict import Blocked

D = TypeVar("D")
BringUp = Callable[[str], AbstractContextManager[D]]


@dataclass(slots=True)
class Broken:
    """Why a topology cannot be used; told in full once."""

    error: BaseException
    told: bool = False


@dataclass(slots=True)
class TopologyManager(Generic[D]):
    """Holds what is up.

    Attributes:
        bring_up: Topology name to a context manager that yields the deployment.
        remaining: Tests not yet finished, per topology.
    """

    bring_up: BringUp[D]
    remaining: Counter[str] = field(default_factory=Counter)
    _up: dict[str, tuple[AbstractContextManager[D], D]] = field(default_factory=dict)
    _broken: dict[str, Broken] = field(default_factory=dict)

    def expect(self, names: Iterable[str]) -> None:
        """Set how many tests of each topology this process may still run."""
        self.remaining = Counter(names)

    def prepare(self, name: str) -> None:
        """Bring `name` up unless it is up or broken; never raises an Exception."""
        if name in self._up or name in self._broken:
            return
        context = self.bring_up(name)
        try:
            self._up[name] = (context, context.__enter__())
        except Exception as error:
            self._broken[name] = Broken(error)

    def check(self, name: str) -> None:
        """Raise if `name` is broken: the story once, then one line each."""
        broken = self._broken.get(name)
        if broken is None:
            return
        if not broken.told:
            broken.told = True
            raise broken.error
        first = str(broken.error).splitlines()[0]
        raise Blocked(f"topology {name!r} broke before: {first}") from broken.error

    def get(self, name: str) -> D:
        """Return the deployment of a topology that was prepared.

        Raises:
            ProvisionError: nobody prepared it, or it could not be brought up.
        """
        self.check(name)
        if name not in self._up:
            raise ProvisionError(
                f"topology {name!r} is not up for this test.",
                hint="name `deployment` among the test's arguments, so that pytest-pd "
                "sees before the test that it is needed",
            )
        return self._up[name][1]

    def declare_broken(self, name: str, error: BaseException) -> None:
        """Block the remaining tests of `name`; `error` was told already."""
        self._broken.setdefault(name, Broken(error, told=True))

    def finished(self, name: str) -> BaseException | None:
        """Note that a test ended; take the topology down after its last one."""
        self.remaining[name] -= 1
        return self.down(name) if self.remaining[name] <= 0 else None

    def down(self, name: str) -> BaseException | None:
        """Take `name` down if it is up; return what went wrong, never raise it."""
        if name not in self._up:
            return None
        context, _ = self._up.pop(name)
        try:
            context.__exit__(None, None, None)
        except Exception as error:
            return error
        return None

    def close(self) -> list[BaseException]:
        """Take everything down, last started first; return what went wrong.

        A second Ctrl-C, which kills what is being taken down, does not keep the
        others from going down, nor the session from its report.
        """
        errors = [self._down_at_once(name) for name in reversed(list(self._up))]
        return [error for error in errors if error is not None]

    def _down_at_once(self, name: str) -> BaseException | None:
        try:
            return self.down(name)
        except KeyboardInterrupt:
            return ProvisionError(f"interrupted again: {name!r} was killed at once.")
