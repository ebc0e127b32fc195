"""From what another tool wrote down to the records of a load run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pytest_pd.load.clock import NS
from pytest_pd.load.point import LoadPoint
from pytest_pd.load.record import (
    EVENT_COLUMNS,
    REQUEST,
    Event,
    Outcome,
    Phase,
    Recorder,
    TokenSource,
)
from pytest_pd.load.result import ENDS_ONLY, Instrument, LoadResult
from pytest_pd.load.run import send_lag_s
from pytest_pd.load.target import Target
from pytest_pd.load.validity import invalid_reasons

UNREADABLE = (
    *(OSError, ValueError, TypeError, LookupError),
    *(AttributeError, OverflowError, RecursionError),
)
"""What reading a file of another tool may raise when it is not of that tool."""


@dataclass(frozen=True, slots=True)
class ForeignRequest:
    """One request as another tool recorded it, in seconds.

    Attributes:
        start_s: Send, on any clock that all requests share.
        event_s: Times of output events after the send, ascending.
        input_tokens, output_tokens: As the tool counted them.
        queue_s: Waited in the tool before the send.
        text: The answer, where the tool kept it.
        error: Empty for a success.
        connect_s: Time to connect, where the tool says; 0 for none.
    """

    start_s: float
    event_s: tuple[float, ...]
    input_tokens: int
    output_tokens: int
    queue_s: float = 0.0
    text: str = ""
    error: str = ""
    connect_s: float = 0.0


def from_gaps(first_s: float, gaps_s: Sequence[float]) -> tuple[float, ...]:
    """Return the times of events whose first one and gaps are known."""
    return tuple(float(t) for t in np.cumsum([first_s, *gaps_s]))


def foreign_result(
    tool: str, requests: Sequence[ForeignRequest], target: Target, point: LoadPoint
) -> LoadResult:
    """Return the records of another tool's run, judged as ours are."""
    recorder = Recorder(len(requests), sum(len(r.event_s) for r in requests) + 1)
    for index, request in enumerate(requests):
        _write(recorder, index, request)
    rows = recorder.requests
    result = LoadResult(
        point=point,
        url=target.url,
        model=target.model,
        endpoint=target.endpoint,
        tokenizer=tool,
        started_at_s=0.0,
        requests=rows,
        columns={name: c[: recorder.used] for name, c in recorder.columns.items()},
        texts=bytes(recorder.texts),
        errors=recorder.errors,
        instrument=_unknown_instrument(tool, recorder),
    )
    return replace(result, reasons=(*_lost(result), *invalid_reasons(result)))


def _lost(result: LoadResult) -> Iterator[str]:
    """Yield a reason where a tool brought fewer requests than it was asked for."""
    asked, found = result.point.requests, len(result.requests)
    if asked and result.point.duration_s is None and found < asked:
        yield f"{result.tokenizer} brought {found} of {asked} requests"


def _write(recorder: Recorder, index: int, request: ForeignRequest) -> None:
    row = recorder.requests[index]
    sent_ns = int(request.start_s * NS)
    stamps = np.array([sent_ns + int(t * NS) for t in request.event_s], "i8")
    block = {name: np.zeros(len(stamps), kind) for name, kind in EVENT_COLUMNS.items()}
    block["stamp_ns"] = stamps
    block["flags"][:] = Event.CONTENT | Event.USER_STAMP
    is_ok = not request.error and len(stamps) and request.output_tokens > 0
    row["phase"] = Phase.MEASURED
    row["outcome"] = Outcome.OK if is_ok else Outcome.DISCONNECT
    row["status"] = 200 if is_ok else 0
    row["token_source"] = TokenSource.USAGE
    row["session"], row["cached_tokens"] = -1, -1
    row["input_tokens"] = request.input_tokens
    row["output_tokens"] = request.output_tokens
    row["intended_ns"] = sent_ns - int(request.queue_s * NS)
    row["sent_before_ns"] = row["sent_after_ns"] = sent_ns
    row["connect_ns"] = int(request.connect_s * NS)
    row["end_ns"] = stamps[-1] if len(stamps) else sent_ns
    row["event_start"] = recorder.add_events(block)
    row["event_count"] = len(stamps)
    text = request.text.encode()
    row["text_start"], row["text_bytes"] = recorder.add_text(text), len(text)
    if not is_ok:
        recorder.errors[index] = request.error or "no output"


def _unknown_instrument(tool: str, recorder: Recorder) -> Instrument:
    """All that can be said of a foreign client: stamps, lateness, concurrency."""
    rows = recorder.requests
    lag_s = send_lag_s(rows)
    nothing = {
        field: 0 if field in _WHOLE else 0.0
        for field in Instrument.__dataclass_fields__
        if field not in _WORDS
    }
    nothing |= {
        "user_stamp_share": 1.0,
        "send_lag_p50_s": lag_s[0],
        "send_lag_p99_s": lag_s[1],
        "most_in_flight": most_in_flight(rows),
        "shards": 1,
        "connections_opened": int((rows["connect_ns"] > 0).sum()),
    }
    fewest = (rows["event_count"] < np.minimum(rows["output_tokens"], 3)).any()
    source = ENDS_ONLY if fewest else "user"
    return Instrument(engine=tool, stamp_source=source, **nothing)  # type: ignore[arg-type]


_WORDS = (
    "engine",
    "stamp_source",
    "calibration",
    "attempts",
    "scheduling",
    "gpus",
    "warm_up",
)
_WHOLE = (
    "cores",
    "collections",
    "clock_steps",
    "connections_opened",
    "retries",
    "most_in_flight",
    "shards",
    "peak_rss_bytes",
)


def most_in_flight(rows: np.ndarray[tuple[int], np.dtype[np.void]]) -> int:
    """Return the highest number of requests between their send and their end."""
    assert rows.dtype == REQUEST
    times = np.concatenate([rows["sent_before_ns"], rows["end_ns"]])
    steps = np.concatenate([np.ones(len(rows), int), -np.ones(len(rows), int)])
    order = np.lexsort((-steps, times))
    return int(np.cumsum(steps[order]).max()) if len(rows) else 0
