"""One question, one answer, one score: what lm-eval left on disk, as records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_pd.errors import InvalidRun

RESULTS = "results_*.json"
REQUESTS = "requests.jsonl"
ERROR = "error.txt"
UNREADABLE = (
    *(OSError, ValueError, TypeError, LookupError),
    *(AttributeError, OverflowError, RecursionError),
)

Key = tuple[str, int]
"""Leaf task and document: the same question on every side."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP exchange of a sample; a multiple-choice sample has one per choice.

    Attributes:
        sent: Place in the order of sending, from zero.
        begun_s: When it was sent, seconds from the side's first request.
        tokens: Answer tokens as text; empty where the server does not tell.
        logprobs: Log-probability of each answer token, alike.
    """

    sent: int
    begun_s: float
    seconds: float
    tokens: tuple[str, ...] = ()
    logprobs: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """One document of one task, answered.

    Attributes:
        score: Of the judged metric, 0 to 1.
        answers: Raw text per request; for choices the log-likelihood as text.
        prompt_hash: Tells whether two sides were asked the same.
    """

    task: str
    doc_id: int
    score: float
    answers: tuple[str, ...]
    prompt_hash: str
    replies: tuple[Reply, ...] = ()

    @property
    def key(self) -> Key:
        return self.task, self.doc_id

    @property
    def sent(self) -> int:
        """Place of its first request in the order of sending."""
        return min((reply.sent for reply in self.replies), default=self.doc_id)

    @property
    def seconds(self) -> float:
        """Seconds that its requests took together."""
        return sum(reply.seconds for reply in self.replies)


def read_samples(
    folder: Path, task: str, metric: str, filter_name: str
) -> list[Sample]:
    """Read every sample of a task or group that one call of lm-eval wrote.

    Raises:
        InvalidRun: lm-eval failed, no result, no sample, fewer samples than lm-eval
            counted, a sample without the metric, or a file that cannot be read.
    """
    refuse_failed(folder, task)
    try:
        results = read_results(folder)
        replies = _read_replies(folder / REQUESTS)
        found = [
            sample
            for leaf in leaves(results, task)
            for sample in _of_leaf(folder, results, leaf, metric, filter_name, replies)
        ]
    except UNREADABLE as error:
        raise InvalidRun(
            f"What lm-eval wrote cannot be read: {type(error).__name__} {error}.",
            hint="look at the end of lm-eval.log",
            where=folder,
        ) from error
    if not found:
        raise InvalidRun(
            f"lm-eval scored no sample of {task!r}.",
            hint="look at its log; a task without samples says nothing",
            where=folder,
        )
    return found


def refuse_failed(folder: Path, task: str) -> None:
    """Raise what ended a call of lm-eval.

    Raises:
        InvalidRun: the driver left an error.
    """
    error = folder / ERROR
    if error.is_file():
        raise InvalidRun(
            f"lm-eval could not score {task!r}: {error.read_text('utf-8')[:400]}",
            hint="the whole story is in lm-eval.log",
            where=folder,
        )


def read_results(folder: Path) -> dict[str, Any]:
    """Return lm-eval's ``results_<time>.json`` of one call.

    Raises:
        InvalidRun: there is none, or more than one.
    """
    found = sorted(folder.glob(f"**/{RESULTS}"))
    if len(found) != 1:
        raise InvalidRun(
            f"{folder} holds {len(found)} results of lm-eval; one is expected.",
            hint="look at the end of lm-eval.log",
            where=folder,
        )
    content = json.loads(found[0].read_text(encoding="utf-8"))
    return dict(content)


def leaves(results: Mapping[str, Any], task: str) -> list[str]:
    """Return the tasks with samples that a task or group stands for."""
    below = results.get("group_subtasks", {}).get(task) or []
    if not below:
        return [task]
    return [leaf for name in below for leaf in leaves(results, name)]


def _of_leaf(
    folder: Path,
    results: Mapping[str, Any],
    leaf: str,
    metric: str,
    filter_name: str,
    replies: Mapping[Key, Sequence[Reply]],
) -> list[Sample]:
    rows = [row for row in _rows(folder, leaf) if row["filter"] == filter_name]
    wanted = int(results.get("n-samples", {}).get(leaf, {}).get("effective", 0))
    if len(rows) != wanted or len({row["doc_id"] for row in rows}) != len(rows):
        raise InvalidRun(
            f"{leaf}: {len(rows)} samples of filter {filter_name!r}, "
            f"{wanted} were asked.",
            hint=f"filters there: {', '.join(_filters(folder, leaf)) or 'none'}",
            where=folder,
        )
    return [_sample(leaf, row, metric, replies, folder) for row in rows]


def _sample(
    leaf: str,
    row: Mapping[str, Any],
    metric: str,
    replies: Mapping[Key, Sequence[Reply]],
    folder: Path,
) -> Sample:
    if metric not in row:
        raise InvalidRun(
            f"{leaf}: a sample has no {metric!r}.",
            hint=f"metrics there: {', '.join(row.get('metrics', ())) or 'none'}",
            where=folder,
        )
    key = (leaf, int(row["doc_id"]))
    if not row["resps"] or not replies.get(key):
        raise InvalidRun(
            f"{leaf}: sample {key[1]} was never answered.", where=folder / REQUESTS
        )
    return Sample(
        leaf,
        key[1],
        float(row[metric]),
        tuple(_text(answer) for answer in row["resps"]),
        str(row["prompt_hash"]),
        tuple(replies[key]),
    )


def _text(answer: Any) -> str:
    """Return a raw answer as text; lm-eval wraps each in lists."""
    while isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    return answer if isinstance(answer, str) else json.dumps(answer)


def _rows(folder: Path, leaf: str) -> Iterable[dict[str, Any]]:
    # the date ends the name: t_2 is not t
    for path in sorted(folder.glob(f"**/samples_{leaf}_[0-9][0-9][0-9][0-9]-*.jsonl")):
        yield from map(json.loads, _lines(path))


def _lines(path: Path) -> list[str]:
    # answers hold characters that splitlines() takes for ends of lines
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line]


def _filters(folder: Path, leaf: str) -> list[str]:
    return sorted({str(row["filter"]) for row in _rows(folder, leaf)})


def _read_replies(path: Path) -> dict[Key, list[Reply]]:
    found: dict[Key, list[Reply]] = {}
    for line in _lines(path) if path.is_file() else ():
        row = json.loads(line)
        key = (str(row["task"]), int(row["doc_id"]))
        found.setdefault(key, []).append(
            Reply(
                int(row["sent"]),
                float(row["begun_s"]),
                float(row["seconds"]),
                tuple(row["tokens"]),
                tuple(row["logprobs"]),
            )
        )
    return found
