"""``evals.json``: every score of one topology in one run, with what the gates said."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pytest_pd.errors import SpecError
from pytest_pd.evals.baseline import Subject
from pytest_pd.files import write_whole

FILE = "evals.json"
FOLDER = "evals"
"""Beside it: questions, answers and results of lm-eval, by eval and side."""


def keep(
    folder: Path, subject: Subject, name: str, evaluation: Mapping[str, Any]
) -> None:
    """Add one evaluation to the ``evals.json`` of a topology's run folder.

    Raises:
        SpecError: it holds scores of another subject.
    """
    path = folder / FILE
    evals = {**evals_of(folder, subject), name: dict(evaluation)}
    text = json.dumps({"subject": asdict(subject), "evals": evals}, indent=1)
    write_whole(path, text + "\n")


def evals_of(folder: Path, subject: Subject) -> dict[str, Any]:
    """Return the evaluations of a subject that a folder holds; none in a new one.

    Raises:
        SpecError: they are of another subject, or the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    record = _read(path)
    found = Subject(**record["subject"])
    if found != subject:
        raise SpecError(
            f"{path} holds scores of {found}, and these are of {subject}.",
            hint="give another folder, for example --out evals-2",
        )
    evals: dict[str, Any] = record["evals"]
    return evals


def read_records(run: Path) -> dict[Path, dict[str, Any]]:
    """Return every ``evals.json`` of a run, by its file.

    Args:
        run: Folder of a run, or of one topology in it.

    Raises:
        SpecError: there is none, or one is damaged.
    """
    found = sorted({*run.glob(FILE), *run.glob(f"*/{FILE}")})
    if not found:
        raise SpecError(
            f"{run} holds no {FILE}.",
            hint="pytest suites/accuracy --pd-level standard writes it",
        )
    return {path: _read(path) for path in found}


def _read(path: Path) -> dict[str, Any]:
    """Return the record of a file.

    Raises:
        SpecError: it is none that this version wrote.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        Subject(**record["subject"])
        is_whole = all(_is_evaluation(each) for each in record["evals"].values())
    except (ValueError, LookupError, TypeError, AttributeError):
        is_whole = False
    if not is_whole:
        raise SpecError(
            f"{path} holds no scores that this version can read.",
            hint="score again: pytest suites/accuracy --pd-level standard",
        )
    found: dict[str, Any] = record
    return found


def _is_evaluation(found: Any) -> bool:
    return all(map(_is_result, found["tasks"].values()))


def _is_result(found: Any) -> bool:
    numbers = (found.get("score", 0), found.get("samples", 0))
    gates = found.get("gates", {}).values()
    return all(isinstance(number, int | float) for number in numbers) and all(
        isinstance(gate["outcome"], str) for gate in gates
    )
