"""What is stored beside each figure of a load run."""

from __future__ import annotations

import dataclasses
from typing import cast

import numpy as np

from pytest_pd.load.record import Array, Event, Outcome, events_of
from pytest_pd.load.result import LoadResult
from pytest_pd.measure.measurement import Json


def describe(result: LoadResult) -> dict[str, Json]:
    """Return point, sizes, outcomes, instrument and validity as plain JSON.

    Headers are no part of a result, so no key can get here.
    """
    rows = result.rows()
    ok = rows[rows["outcome"] == Outcome.OK]
    sources, numbers = np.unique(ok["token_source"], return_counts=True)
    output = int(ok["output_tokens"].sum())
    flags = result.columns["flags"][events_of(ok)]
    events = int(((flags & Event.CONTENT) != 0).sum())
    return {
        "load": _plain(dataclasses.asdict(result.point)),
        "endpoint": result.endpoint,
        "model": result.model,
        "tokenizer": result.tokenizer,
        "requests": len(rows),
        "outcomes": cast(Json, result.counts()),
        "success_share": len(ok) / len(rows) if len(rows) else 0.0,
        "input_tokens_mean": float(ok["input_tokens"].mean()) if len(ok) else 0.0,
        "input_tokens_other_than_wanted": _miscounted(ok),
        "output_tokens_mean": output / len(ok) if len(ok) else 0.0,
        "tokens_per_event": output / events if events else 0.0,
        "token_sources": {
            str(int(source)): int(number)
            for source, number in zip(sources, numbers, strict=True)
        },
        "instrument": _plain(dataclasses.asdict(result.instrument)),
        "valid": result.is_valid,
        "reasons": list(result.reasons),
    }


def _miscounted(ok: Array) -> int:
    """Return how many prompts the server counts another length for than we do."""
    known = ok["wanted_tokens"] > 0
    return int((known & (ok["input_tokens"] != ok["wanted_tokens"])).sum())


def _plain(value: object) -> Json:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, str):
        return str(value)
    return cast(Json, value)
