"""When a load run cannot carry a conclusion, and why."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pytest_pd.load.clock import NS
from pytest_pd.load.point import Arrivals
from pytest_pd.load.record import Array, Event, Outcome, TokenSource
from pytest_pd.load.result import LoadResult

MIN_ACHIEVED_SHARE = 0.9
"""Of the requested rate, over the span in which requests were sent."""
END_SLACK_S = 0.1
"""A stream that became free this near to the end need not have started again."""


def invalid_reasons(result: LoadResult) -> Iterator[str]:
    """Yield one sentence per reason; nothing for a run that holds."""
    rows = result.rows()
    ok = rows[rows["outcome"] == Outcome.OK]
    if not len(rows):
        yield "no request was measured"
        return
    missing = int(np.isin(rows["outcome"], (Outcome.NOT_SENT, Outcome.IN_FLIGHT)).sum())
    if missing:
        yield f"{missing} of {len(rows)} requests are unaccounted for"
    if not len(ok):
        yield f"none of {len(rows)} requests succeeded: {result.counts()}"
        return
    if empty := result.counts().get("no_output", 0):
        yield f"{empty} requests brought no output token"
    if result.instrument.clock_steps:
        yield f"the realtime clock was set {result.instrument.clock_steps} times"
    yield from _short(ok)
    yield from _too_few(result, rows)
    if result.point.is_open:
        yield from _late(result, rows, ok)


def used_up(result: LoadResult) -> Iterator[str]:
    """Yield a reason where a run limited by time had no prompt left before its end.

    A trace ends when it ends, and so does a run that also has a number of requests.
    In a closed loop without conversations each load process is looked at: its streams
    never rest while it has prompts.
    """
    point, rows = result.point, result.requests
    is_fed = point.arrivals not in (Arrivals.TRACE, Arrivals.BURST)
    measured = result.rows()
    if point.duration_s is None or point.requests is not None or not is_fed:
        return
    if not len(measured):
        return
    start_ns = int(measured["intended_ns"].min())
    if not (rows["outcome"] == Outcome.NOT_SENT).any():
        lasted_s = (int(measured["end_ns"].max()) - start_ns) / NS
        if lasted_s < point.duration_s:
            yield (
                f"all {len(measured)} prompts were used up after {lasted_s:.3g} of "
                f"{point.duration_s:g} s: shorten the time, or the prompts"
            )
    elif not point.is_open and (measured["session"] < 0).all():
        for shard in np.unique(measured["shard"]):
            own = measured[measured["shard"] == shard]
            lasted_s = (int(own["end_ns"].max()) - start_ns) / NS
            if lasted_s < point.duration_s - END_SLACK_S:
                yield (
                    f"load process {shard} had used up its {len(own)} prompts after "
                    f"{lasted_s:.3g} of {point.duration_s:g} s: give more prompts"
                )


def _short(ok: Array) -> Iterator[str]:
    """A server that cuts answers looks faster, and is not."""
    counted = np.isin(ok["token_source"], (TokenSource.USAGE, TokenSource.TOKEN_IDS))
    known = ok[counted & (ok["asked_tokens"] > 0)]
    short = known[known["output_tokens"] < known["asked_tokens"]]
    if len(short):
        yield (
            f"{len(short)} of {len(known)} answers are shorter than asked, with "
            f"{short['output_tokens'].sum()} of {short['asked_tokens'].sum()} tokens; "
            "a server that does not know ignore_eos needs --stop-at-eos, or a "
            "workload with ignore_eos: false"
        )


def _too_few(result: LoadResult, rows: Array) -> Iterator[str]:
    point = result.point
    if point.is_open or point.concurrency is None:
        return
    wanted = point.min_waves * point.concurrency
    if len(rows) < wanted:
        yield (
            f"{len(rows)} requests are fewer than {point.min_waves} x concurrency "
            f"{point.concurrency}: no steady state"
        )
    reached = result.instrument.most_in_flight
    if reached < min(point.concurrency, len(rows)):
        yield f"only {reached} of {point.concurrency} streams were ever in flight"


def _late(result: LoadResult, rows: Array, ok: Array) -> Iterator[str]:
    """Coordinated omission: a client that sends late measures something else."""
    sent = rows[rows["sent_before_ns"] > 0]
    late_s = result.instrument.send_lag_p99_s
    ttft_s = median_ttft_s(result, ok)
    limit_s = result.point.max_lateness_share * ttft_s
    if late_s > limit_s:
        yield (
            f"requests were sent late: p99 {late_s * 1e3:.3g} ms is above "
            f"{result.point.max_lateness_share:.0%} of the median TTFT "
            f"{ttft_s * 1e3:.3g} ms"
        )
    span = np.ptp(sent["intended_ns"]) if len(sent) > 1 else 0
    actual = np.ptp(sent["sent_before_ns"]) if len(sent) > 1 else 0
    if span and span / max(actual, 1) < MIN_ACHIEVED_SHARE:
        yield f"only {span / actual:.0%} of the requested rate was reached"


def median_ttft_s(result: LoadResult, rows: Array) -> float:
    """Return the median time to first token from the actual send, in seconds."""
    firsts = []
    for row in rows:
        start = int(row["event_start"])
        part = slice(start, start + int(row["event_count"]))
        is_content = (result.columns["flags"][part] & Event.CONTENT) != 0
        if is_content.any():
            first = result.columns["stamp_ns"][part][is_content.argmax()]
            firsts.append(int(first) - int(row["sent_before_ns"]))
    return float(np.median(firsts)) / 1e9 if firsts else 0.0
