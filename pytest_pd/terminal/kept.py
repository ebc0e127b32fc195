"""Where ``pytest-pd load`` keeps its points: on disk before they are shown."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_pd.errors import MeasurementError, PdError, SpecError
from pytest_pd.load.option import check_file, write_json
from pytest_pd.load.result import LoadResult
from pytest_pd.terminal.shown import show


@dataclass(slots=True)
class Keeper:
    """Takes points as they are measured; what goes wrong here costs no later one.

    Attributes:
        json: File of the figures of all points, or None.
        save: Folder of raw records, one file a point, or None.
        report: The points so far, as plain JSON.
    """

    json: Path | None
    save: Path | None
    report: list[dict[str, Any]] = field(default_factory=list)
    _lost: dict[Path, PdError] = field(default_factory=dict)

    def check(self) -> None:
        """Look before the first point whether the last one can be written.

        Raises:
            SpecError: ``--json`` or ``--save`` names a place that cannot be.
        """
        if self.json:
            check_file(self.json)
        if self.save:
            try:
                self.save.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise SpecError(
                    f"--save {self.save} cannot be a folder: {error.strerror}."
                ) from error

    def keep(
        self,
        label: str,
        result: LoadResult,
        entry: dict[str, Any],
        *,
        last: bool,
        note: str = "",
    ) -> None:
        """Write a point, then show it.

        Args:
            entry: Its figures as plain JSON.
            note: A line to show below them.

        Raises:
            OSError: it cannot be shown, and no file was asked for.
        """
        self.report.append(entry)
        if self.json:
            with self._told(self.json):
                write_json(self.json, self.report, done=last)
        if self.save:
            path = self.save / f"{label}.npz"
            with self._told(path):
                result.save(path)
        try:
            show(label, result, entry)
            if note:
                print(f"{note}\n", flush=True)
        except OSError:  # a reader like `head` left, or there is no room
            if not (self.json or self.save):
                raise

    @contextmanager
    def _told(self, path: Path) -> Iterator[None]:
        try:
            yield
        except (PdError, OSError) as error:
            self._lost[path] = as_told(path, error)
            with suppress(OSError):
                print(f"pytest-pd load: {self._lost[path]}", file=sys.stderr)
        else:
            self._lost.pop(path, None)  # what it holds now has the earlier points too

    def end(self) -> None:
        """Say at the end what is on no disk.

        Raises:
            MeasurementError: a file could not be written.
        """
        if self._lost:
            names = ", ".join(map(str, self._lost))
            raise MeasurementError(
                f"Not written: {names}.", hint="why is said above; so are the figures"
            )


def as_told(path: Path, error: PdError | OSError) -> PdError:
    """Return what a file could not be written for, as an error of ours."""
    if isinstance(error, PdError):
        return error
    return MeasurementError(
        f"{path} cannot be written: {error.strerror or error}.",
        hint="make room: the sweep goes on",
    )
