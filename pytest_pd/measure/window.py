"""The part of a run in which the offered load was really on the server."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pytest_pd.load.clock import NS
from pytest_pd.load.point import LoadPoint
from pytest_pd.load.record import Array, Outcome
from pytest_pd.load.result import LoadResult


@dataclass(frozen=True, slots=True)
class Window:
    """A span of monotonic ns.

    Attributes:
        start_ns, end_ns: Its ends.
        is_steady: The full load was on for all of it.
    """

    start_ns: int
    end_ns: int
    is_steady: bool

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9


def steady_window(result: LoadResult) -> Window:
    """Return the span between ramp-up and ramp-down.

    Closed loop: from the send that first filled all streams, and not before the last
    of them began, to the last send, after which streams run dry. Open loop: from one
    median request after the first send, or after the end of the ramp, when as much
    ends as begins, to the last send. If that is no span at all, the whole run, marked
    as not steady.
    """
    point, rows = result.point, result.rows()
    sent = np.sort(rows["sent_before_ns"][rows["sent_before_ns"] > 0])
    if not len(sent):
        return Window(0, 0, is_steady=False)
    streams = 1 if point.is_open else point.concurrency or 1
    if len(sent) > streams:
        filled = int(sent[0]) + _ramp_ns(point)
        filled += _median_ns(rows) if point.is_open else 0
        start = max(int(sent[streams - 1]), filled)
        if start < sent[-1]:
            return Window(start, int(sent[-1]), is_steady=True)
    return Window(int(sent[0]), int(rows["end_ns"].max()), is_steady=False)


def _median_ns(rows: Array) -> int:
    """Return how long half of the successful requests took at most."""
    ok = rows[rows["outcome"] == Outcome.OK]
    return int(np.median(ok["end_ns"] - ok["sent_before_ns"])) if len(ok) else 0


def _ramp_ns(point: LoadPoint) -> int:
    """Return how long after the first send the last stream or the full rate comes."""
    if point.is_open:  # traces and bursts have no rate, and keep to their own times
        return int(point.ramp_s * NS) if point.rate_per_s else 0
    streams = point.concurrency or 1
    return int(point.ramp_s * NS * (streams - 1) / streams)


def token_events(result: LoadResult, rows: Array) -> tuple[Array, Array]:
    """Return stamps (ns) and output tokens of all events of `rows`, shape (n,) each.

    An event counts as the tokens it said it brought, else as its request's tokens
    divided evenly over its events.
    """
    stamps, amounts = [np.zeros(0, "i8")], [np.zeros(0)]
    for row in rows:
        stamp_ns, _, _, tokens = result.content(row)
        weights = tokens.astype(float)
        if len(stamp_ns) and weights.sum() != row["output_tokens"]:
            weights[:] = row["output_tokens"] / len(stamp_ns)
        stamps.append(stamp_ns)
        amounts.append(weights)
    return np.concatenate(stamps), np.concatenate(amounts)
