"""Samples of aggregated serving, kept for P/D that has nobody to ask: files."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from pytest_pd.errors import SpecError
from pytest_pd.evals.baseline import Subject
from pytest_pd.spec.locate import Roots

FOLDER = Path("store") / "aggregated"
"""Below each folder of eval files; in it ``<model>/<engine>/<eval>/``."""
SUBJECT = "subject.json"


def place_of(subject: Subject, evaluation: str) -> Path:
    """Return where samples of one model and engine lie, below `FOLDER`.

    Topology and hardware are not in it: aggregated serving is another topology. A
    reader sees in ``subject.json`` which it was.
    """
    words = (subject.model, subject.engine, evaluation)
    return Path(*(re.sub(r"[^\w.-]+", "-", word) for word in words))


def find_stored(roots: Roots, subject: Subject, evaluation: str) -> Path:
    """Return the folder of stored samples, as one side of an evaluation.

    Raises:
        SpecError: there is none for this model and engine.
    """
    place = place_of(subject, evaluation)
    for folder in roots.folders("evals"):
        if (found := folder / FOLDER / place).is_dir():
            return found
    raise SpecError(
        f"No samples of aggregated serving are stored for model {subject.model!r}, "
        f"{subject.engine}, eval {evaluation!r}.",
        hint="run the eval on an aggregated topology with the same engine, then "
        "`pytest-pd evals store RUN`",
    )


def store(side: Path, into: Path, subject: Subject, evaluation: str) -> Path:
    """Copy one side's results and samples into a store, in place of older ones.

    Args:
        side: ``<run>/<topology>/evals/<eval>/<side>``.
        into: A folder of eval files.
    """
    target = into / FOLDER / place_of(subject, evaluation)
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(side, partial)
    (partial / SUBJECT).write_text(json.dumps(asdict(subject), indent=1) + "\n")
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return target


def refuse_disaggregated(scores: Iterable[str]) -> None:
    """Refuse samples of a topology that hands KV over as those of one that does not.

    Raises:
        SpecError: there was an aggregated side, so the first was P/D.
    """
    if "aggregated" in set(scores):
        raise SpecError(
            "This run is of prefill and decode: its first side is no aggregated one.",
            hint="run the eval on a topology with aggregated workers",
        )
