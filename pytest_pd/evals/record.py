"""``evals.json``: every score of one topology in one run, with what the gates said."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pytest_pd.errors import SpecError
from pytest_pd.evals.baseline import Subject

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
    partial = path.with_name(FILE + ".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def evals_of(folder: Path, subject: Subject) -> dict[str, Any]:
    """Return the evaluations of a subject that a folder holds; none in a new one.

    Raises:
        SpecError: they are of another subject.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    record = json.loads(path.read_text(encoding="utf-8"))
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
        SpecError: there is none.
    """
    found = sorted({*run.glob(FILE), *run.glob(f"*/{FILE}")})
    if not found:
        raise SpecError(
            f"{run} holds no {FILE}.",
            hint="pytest suites/accuracy --pd-level standard writes it",
        )
    return {path: json.loads(path.read_text(encoding="utf-8")) for path in found}
