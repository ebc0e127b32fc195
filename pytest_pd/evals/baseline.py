"""Accepted scores: a file under review, written by a command and never by a run."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from pytest_pd.errors import SpecError
from pytest_pd.files import write_whole
from pytest_pd.spec.base import Count, Model, Positive
from pytest_pd.spec.document import read_document
from pytest_pd.spec.evals import EvalFileSpec, ReferenceSpec
from pytest_pd.spec.file import build
from pytest_pd.spec.locate import Roots

STORE = Path("store") / "accepted.yaml"
"""Below each folder of eval files."""
HEADER = """\
# Accepted scores, one per model, topology, hardware, engine version and task.
# Written by `pytest-pd evals accept RUN --reason "..."` and reviewed as any other
# change; a run never writes here.
"""
SHORTEST_REASON = 3
COPIED = ("metric", "limit", "shots", "samples")
KEYS = ("model", "topology", "hardware", "engine", "evaluation", "task", "metric")


@dataclass(frozen=True, slots=True)
class Subject:
    """What a score belongs to: another one is another score.

    Attributes:
        engine: Name and version, ``vllm 0.32.0``.
    """

    model: str
    topology: str
    hardware: str
    engine: str

    def __str__(self) -> str:
        return (
            f"model {self.model!r}, topology {self.topology!r}, {self.hardware}, "
            f"{self.engine}"
        )


class AcceptedSpec(Model):
    """One accepted score.

    Attributes:
        metric: ``exact_match,none``: metric and filter, as lm-eval writes them.
        right: Samples right of `samples`: its own error is known, so no score is
            taken for exact.
        run: Run that it is from; `reason` says why it was accepted.
    """

    model: str
    topology: str
    hardware: str
    engine: str
    evaluation: str = Field(alias="eval")
    task: str
    metric: str
    limit: Positive | None = None
    shots: Count | None = None
    right: Count
    samples: Positive
    run: str
    date: datetime.date
    reason: str = Field(min_length=SHORTEST_REASON)

    @property
    def score(self) -> float:
        return self.right / self.samples

    def key(self) -> tuple[str, ...]:
        """Return what makes it one and not another score."""
        return (*(getattr(self, k) for k in KEYS), str(self.limit), str(self.shots))


class StoreSpec(Model):
    """A file of accepted scores."""

    accepted: tuple[AcceptedSpec, ...] = ()


def read_store(path: Path) -> tuple[AcceptedSpec, ...]:
    """Read one store; a file that is not there holds nothing.

    Raises:
        SpecError: something in it is wrong, or one score stands twice.
    """
    if not path.is_file():
        return ()
    found = build(read_document(path), StoreSpec).accepted
    seen: set[tuple[str, ...]] = set()
    for entry in found:
        if entry.key() in seen:
            raise SpecError(
                f"{path} holds two scores of {entry.task!r} for {entry.model!r} on "
                f"{entry.topology!r}.",
                hint="remove the older one",
            )
        seen.add(entry.key())
    return found


def read_stores(roots: Roots) -> tuple[AcceptedSpec, ...]:
    """Return the scores of every eval folder; the project's come first."""
    found: dict[tuple[str, ...], AcceptedSpec] = {}
    for folder in roots.folders("evals"):
        for entry in read_store(folder / STORE):
            found.setdefault(entry.key(), entry)
    return tuple(found.values())


def write_store(path: Path, entries: Iterable[AcceptedSpec]) -> None:
    """Write a store, sorted, so that a diff shows what changed; whole or not at all."""
    rows = [
        entry.model_dump(mode="json", by_alias=True, exclude_none=True)
        for entry in sorted(entries, key=AcceptedSpec.key)
    ]
    text = yaml.safe_dump({"accepted": rows}, sort_keys=False, allow_unicode=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, HEADER + text)


@dataclass(frozen=True, slots=True)
class Expected:
    """A score to hold against: stated by somebody, or accepted from a run of ours.

    Attributes:
        samples: Of an accepted score; 0 for a stated one, which is taken as exact.
    """

    score: float
    source: str
    right: int = 0
    samples: int = 0


def find_expected(
    spec: EvalFileSpec,
    task: str,
    subject: Subject,
    store: Sequence[AcceptedSpec],
    *,
    weights: str = "",
) -> Expected | None:
    """Return the score that a task must reach: accepted first, then stated.

    Args:
        weights: Name of the model's folder; stated scores go by it as well.
    """
    wanted = spec.tasks[task]
    for entry in store:
        settings = (entry.evaluation, entry.task, entry.limit, entry.shots)
        if settings != (spec.name, task, wanted.limit, wanted.shots):
            continue
        if entry.metric != f"{wanted.metric},{wanted.filter}":
            continue
        if Subject(*(getattr(entry, key) for key in KEYS[:4])) == subject:
            source = f"accepted {entry.date} from run {entry.run}"
            return Expected(entry.score, source, entry.right, entry.samples)
    return _stated(spec.references, task, {subject.model, weights})


def _stated(
    references: Iterable[ReferenceSpec], task: str, models: set[str]
) -> Expected | None:
    for entry in references:
        if entry.task == task and entry.model in models:
            when = f", {entry.date}" if entry.date else ""
            return Expected(entry.score, f"{entry.source}{when}")
    return None


def how_to_add(spec: EvalFileSpec, task: str, subject: Subject) -> SpecError:
    """Return the error for a score that nobody has stated or accepted."""
    return SpecError(
        f"Nobody has stated or accepted a score of {task!r} (eval {spec.name!r}) for "
        f"{subject}.",
        hint='read the run, then `pytest-pd evals accept RUN --reason "..."`; or state '
        f"one under references: in {spec.name}.yaml, with source and date",
    )


def accepted_of(
    record: Mapping[str, Any], run: str, reason: str, on: datetime.date
) -> list[AcceptedSpec]:
    """Return what one topology's ``evals.json`` would have accepted.

    Scores that count no right answers are left out.

    Raises:
        SpecError: the reason is too short.
    """
    if len(reason) < SHORTEST_REASON:
        raise SpecError(
            f"The reason {reason!r} has fewer than {SHORTEST_REASON} letters.",
            hint='say why these scores are right, for example --reason "first run on '
            'gb200, read by hand"',
        )
    found = []
    for name, evaluation in record["evals"].items():
        for task, result in evaluation["tasks"].items():
            if "error" in result:
                continue
            right = round(result["score"] * result["samples"])
            if abs(right - result["score"] * result["samples"]) > 1e-6:
                continue  # a mean of other scores: only pairs can be judged
            found.append(
                AcceptedSpec.model_validate(
                    {
                        **record["subject"],
                        **{key: result[key] for key in COPIED},
                        "eval": name,
                        "task": task,
                        "right": right,
                        "run": run,
                        "date": on,
                        "reason": reason,
                    }
                )
            )
    return found


def refuse_bad(record: Mapping[str, Any]) -> None:
    """Refuse to accept scores of a run whose own gates failed.

    Raises:
        SpecError: names them; a reference gate may fail, it is what is renewed.
    """
    bad = [
        f"{task} ({kind})"
        for evaluation in record["evals"].values()
        for task, result in evaluation["tasks"].items()
        for kind, gate in result.get("gates", {"error": {"outcome": "error"}}).items()
        if kind != "reference" and gate["outcome"] != "passed"
    ]
    if bad:
        raise SpecError(
            f"This run lost accuracy by itself: {', '.join(bad)}.",
            hint="find out why; --even-so accepts its scores all the same",
        )
