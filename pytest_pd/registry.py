"""Which class is called 'slurm'? Names to ``module:attribute``, imported on use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar, cast

from pytest_pd.errors import SpecError

T = TypeVar("T")


class Registry(Generic[T]):
    """Built-in names first, then the entry points of other distributions.

    Args:
        kind: Word used in messages, for example ``engine``.
        builtin: Name to ``module:attribute``.
        group: Entry-point group that outsiders use; empty for none.
    """

    def __init__(self, kind: str, builtin: Mapping[str, str], group: str = "") -> None:
        self.kind = kind
        self.group = group
        self._builtin = dict(builtin)

    def _targets(self) -> dict[str, str]:
        found = dict(self._builtin)
        for point in entry_points(group=self.group) if self.group else ():
            if point.name in found:
                raise SpecError(
                    f"{self.kind} {point.name!r} is provided twice: "
                    f"{found[point.name]} and {point.value}.",
                    hint="uninstall one of the two distributions",
                )
            found[point.name] = point.value
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._targets()))

    def get(self, name: str) -> T:
        """Import and return what is registered as `name`.

        Raises:
            SpecError: nobody registered the name; lists the known ones.
        """
        targets = self._targets()
        if name not in targets:
            raise SpecError.unknown(self.kind, name, targets)
        module, _, attribute = targets[name].partition(":")
        return cast(T, getattr(import_module(module), attribute))
