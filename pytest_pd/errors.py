"""Every error a user can meet: a fact, what to do about it, and where to look.

PdError
├── SpecError              a file or an option asks for something impossible
├── ProvisionError         a topology could not be brought up
│   ├── BackendMissing     this host cannot use the backend (no sbatch, no kubectl)
│   ├── EngineMissing      the engine is not installed here
│   ├── ProcessDied        a service ended while it was needed
│   ├── ReadyTimeout       a service lives and never became ready
│   └── InfrastructureLost node, job or connection is gone; no verdict
├── MeasurementError       samples cannot carry the metric asked for
└── InvalidRun             the run happened and cannot carry a conclusion
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class PdError(Exception):
    """Base of the hierarchy: a fact, a hint what to do, and a place to look.

    Args:
        fact: Whole sentence: what is the case, with names in quotes.
        hint: An act, in the imperative; empty when there is none.
        where: Log, ``file:line`` or key that shows more.
    """

    def __init__(
        self, fact: str, *, hint: str = "", where: Path | str | None = None
    ) -> None:
        self.fact = fact
        self.hint = hint
        self.where = where
        super().__init__(fact)

    def __str__(self) -> str:
        lines = [self.fact]
        if self.hint:
            lines.append(f"  try: {self.hint}")
        if self.where is not None:
            lines.append(f"  see: {self.where}")
        return "\n".join(lines)


class SpecError(PdError):
    """A file or an option asks for something impossible."""

    @classmethod
    def unknown(cls, kind: str, name: str, known: Iterable[str]) -> SpecError:
        """Return the error for a name that nobody registered."""
        names = sorted(known)
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return cls(
            f"{kind} {name!r} is not known.", hint=f"{hint}one of: {', '.join(names)}"
        )


class ProvisionError(PdError):
    """A topology could not be brought up."""


class BackendMissing(ProvisionError):
    """This host cannot use the backend."""


class EngineMissing(ProvisionError):
    """The engine that the topology names is not installed here."""


class ProcessDied(ProvisionError):
    """A service ended while it was needed."""


class ReadyTimeout(ProvisionError):
    """A service lives and did not become ready within its budget."""


class InfrastructureLost(ProvisionError):
    """A node, job or connection went away: says nothing about the content."""


class MeasurementError(PdError):
    """Samples cannot carry the metric that was asked for."""


class InvalidRun(PdError):
    """The run happened and cannot carry a conclusion."""
