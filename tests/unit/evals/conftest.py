"""Samples and lm-eval's files, made by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_pd.evals.sample import Reply, Sample
from pytest_pd.spec.evals import EvalFileSpec

TIME = "2026-11-21T10-00-00.000001"


@pytest.fixture
def make_sample():
    """Return a maker of samples: right unless told, in the order of their ids."""

    def _make(
        doc_id: int,
        text: str = "w001 w002",
        score: float = 1.0,
        logprobs: Sequence[float] = (),
        task: str = "t",
    ) -> Sample:
        reply = Reply(doc_id, 0.1 * doc_id, 0.05, tuple(text.split()), tuple(logprobs))
        return Sample(task, doc_id, score, (text,), f"hash-{doc_id}", (reply,))

    return _make


@pytest.fixture
def make_eval():
    """Return a maker of eval files with one task ``t`` and the gates named."""

    def _make(*kinds: str, **more: object) -> EvalFileSpec:
        gates = [{"kind": kind, "largest_drop": 0.5} for kind in kinds]
        task = {"metric": "exact_match", "gates": gates}
        return EvalFileSpec.model_validate({"name": "e", "tasks": {"t": task}, **more})

    return _make


@pytest.fixture
def lay_out():
    """Return a writer of what one call of lm-eval leaves."""

    def _write(
        folder: Path,
        rows: dict[str, list[dict]],
        *,
        effective: dict[str, int] | None = None,
        groups: dict[str, list[str]] | None = None,
        answered: bool = True,
    ) -> None:
        inner = folder / "tiny"
        inner.mkdir(parents=True)
        counts = effective or {task: len(found) for task, found in rows.items()}
        results = {
            "results": {},
            "n-samples": {task: {"effective": n} for task, n in counts.items()},
            "group_subtasks": groups or {task: [] for task in rows},
        }
        (inner / f"results_{TIME}.json").write_text(json.dumps(results))
        sent = []
        for task, found in rows.items():
            text = "".join(json.dumps(row) + "\n" for row in found)
            (inner / f"samples_{task}_{TIME}.jsonl").write_text(text)
            sent += [(task, row["doc_id"]) for row in found]
        lines = [
            {
                "task": task,
                "doc_id": doc_id,
                "sent": place,
                "begun_s": 0.1,
                "seconds": 0.2,
                "tokens": [],
                "logprobs": [],
            }
            for place, (task, doc_id) in enumerate(sent)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines if answered)
        (folder / "requests.jsonl").write_text(text)

    return _write


@pytest.fixture
def row():
    """Return a maker of one line of lm-eval's samples."""

    def _row(doc_id: int, score: float = 1.0, filter_name: str = "none") -> dict:
        return {
            "doc_id": doc_id,
            "resps": [[" w001 w002"]],
            "filter": filter_name,
            "metrics": ["exact_match"],
            "exact_match": score,
            "prompt_hash": f"p{doc_id}",
        }

    return _row
