"""Accepted baselines: a file that people review, one entry for each set-up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from pytest_pd.spec.base import Model
from pytest_pd.spec.document import read_document
from pytest_pd.spec.file import build


class FigureSpec(Model):
    """One statistic of one entry, as every accepted run had it.

    Attributes:
        values: One for each run, in the entry's unit.
        errors: Relative standard error inside of each run.
    """

    unit: str = "s"
    values: tuple[float, ...] = Field(min_length=1)
    errors: tuple[float, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _as_many(self) -> FigureSpec:
        if len(self.values) != len(self.errors):
            raise ValueError("values and errors are not as many")
        if min(self.values) <= 0 or min(self.errors) < 0:
            raise ValueError("values are above 0 and errors not below")
        return self


class BaselineSpec(Model):
    """What one set-up is held against.

    Attributes:
        loads: Test to the load of its figures; others are not held against it.
        figures: By entry, then by statistic.
    """

    hardware: str = ""
    topology: str
    topology_hash: str = ""
    engine: str = ""
    mode: str = "real"
    label: str = ""
    accepted: str = ""
    by: str = ""
    reason: str = ""
    runs: tuple[str, ...] = ()
    loads: dict[str, dict[str, Any]] = Field(default_factory=dict)
    figures: dict[str, dict[str, FigureSpec]] = Field(default_factory=dict)

    @property
    def key(self) -> tuple[str, ...]:
        """What a run must share to be held against it."""
        return (
            *(self.mode, self.topology_hash, self.hardware),
            *(self.engine, self.label),
        )


class BaselineFile(Model):
    """A file of accepted baselines."""

    baselines: tuple[BaselineSpec, ...] = ()


def read_baselines(path: Path) -> BaselineFile:
    """Read a file of accepted baselines.

    Raises:
        SpecError: what is wrong, with file and line.
    """
    return build(read_document(path), BaselineFile)
