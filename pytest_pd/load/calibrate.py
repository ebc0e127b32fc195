"""The instrument's own error, measured against a server of known truth."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pytest_pd.errors import MeasurementError, SpecError
from pytest_pd.load.point import LoadPoint
from pytest_pd.load.prompts import Prompt
from pytest_pd.load.record import Array, Event
from pytest_pd.load.result import LoadResult
from pytest_pd.load.run import run_load
from pytest_pd.load.target import Target
from pytest_pd.load.truth_process import TruthLog, truth_server
from pytest_pd.user import expand

CACHE_S = 3600.0
"""A calibration older than this is of another time of day on the same host."""
VERSION = 2


@dataclass(frozen=True, slots=True)
class Rhythm:
    """The rate at which the instrument is tried.

    Attributes:
        concurrency: Streams at a time.
        ttft_s, itl_s: Times of the answers, rounded so that runs alike share one
            calibration.
        output_tokens: Events per answer.
        shards: Load processes.
    """

    concurrency: int
    ttft_s: float
    itl_s: float
    output_tokens: int
    shards: int = 1

    @classmethod
    def of(cls, result: LoadResult) -> Rhythm:
        """Return the rhythm of a run: its medians, its highest concurrency.

        Raises:
            MeasurementError: no request of it succeeded.
        """
        traces = [t for t in result.traces() if t.is_ok and len(t.stamp_ns)]
        if not traces:
            raise MeasurementError("A run without successes has no rhythm.")
        gaps = np.concatenate([np.diff(t.stamp_ns) for t in traces])
        ttft_ns = np.median([t.stamp_ns[0] - t.sent_before_ns for t in traces])
        return cls(
            concurrency=_power_of_two(result.instrument.most_in_flight),
            ttft_s=_round(float(ttft_ns) / 1e9),
            itl_s=_round(float(np.median(gaps)) / 1e9 if len(gaps) else 0.01),
            output_tokens=_power_of_two(
                int(np.median([len(t.stamp_ns) for t in traces]))
            ),
            shards=result.instrument.shards,
        )


def _round(seconds: float) -> float:
    """The next power of two below, so that the instrument is tried a little harder
    than it was used; 1/8192 s at least."""
    return 2.0 ** max(math.floor(math.log2(max(seconds, 1e-9))), -13)


def _power_of_two(count: int) -> int:
    """The next power of two: runs that hardly differ share one calibration."""
    return 1 << max(count - 1, 0).bit_length()


@dataclass(frozen=True, slots=True)
class Spread:
    """How an error is spread, in seconds."""

    p50_s: float
    p99_s: float
    max_s: float

    @classmethod
    def of(cls, values_ns: Array) -> Spread:
        if not len(values_ns):
            return cls(0.0, 0.0, 0.0)
        p50, p99, top = np.quantile(values_ns, (0.5, 0.99, 1), method="inverted_cdf")
        return cls(float(p50) / 1e9, float(p99) / 1e9, float(top) / 1e9)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Error of the instrument: distance of each reading outside the truth's window.

    Attributes:
        rhythm: At which it was measured.
        ttft, itl, e2e: Over all readings, those of shared reads included.
        itl_alone: Over gaps between events that each had a read of their own.
        coalesced_share: Of events that shared a read.
        send_width_p99_s: Uncertainty of the send time.
        read_lag_p99_s: What a client that stamps in user space would have added.
        cpu_share, run_queue_s, load_average: Of the client and its host.
        stamp_source: ``kernel``, ``user`` or ``mixed``.
        scheduling: ``fifo`` or ``normal``.
        requests, events: How many were compared.
        server_late_p99_s: How late the truth server sent, by its own stamps; it is
            no part of the error.
        measured_at_s: Unix time.
    """

    rhythm: Rhythm
    ttft: Spread
    itl: Spread
    itl_alone: Spread
    e2e: Spread
    coalesced_share: float
    send_width_p99_s: float
    read_lag_p99_s: float
    cpu_share: float
    run_queue_s: float
    load_average: float
    stamp_source: str
    scheduling: str
    requests: int
    events: int
    server_late_p99_s: float
    measured_at_s: float

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Calibration:
        spreads = {k: Spread(**data[k]) for k in ("ttft", "itl", "itl_alone", "e2e")}
        return cls(**{**data, **spreads, "rhythm": Rhythm(**data["rhythm"])})

    def line(self) -> str:
        """Return the calibration in one line for a terminal."""

        def us(spread: Spread) -> str:
            return "/".join(
                f"{v * 1e6:.3g}" for v in (spread.p50_s, spread.p99_s, spread.max_s)
            )

        return (
            f"instrument error p50/p99/max us: ttft {us(self.ttft)}, "
            f"itl {us(self.itl)}, e2e {us(self.e2e)}; {self.stamp_source} stamps, "
            f"{self.scheduling} scheduling, "
            f"coalesced {self.coalesced_share:.2%}, cpu {self.cpu_share:.0%}, "
            f"load {self.load_average:.1f}"
        )


@dataclass(frozen=True, slots=True)
class Errors:
    """Distance of each reading outside its window, ns."""

    ttft: Array
    itl: Array
    itl_alone: Array
    e2e: Array
    late: Array


def compare(result: LoadResult, log: TruthLog, itl_s: float) -> Errors:
    """Return the errors of every successful request against the server's log.

    Raises:
        MeasurementError: an answer has other events than the server sent.
    """
    serials = {int(client): int(serial) for serial, client, _, _ in log.requests}
    arrivals = {int(serial): int(at) for serial, _, at, _ in log.requests}
    sends = log.sends[np.lexsort((log.sends[:, 1], log.sends[:, 0]))]
    base = int(log.requests[0, 0]) if len(log.requests) else 0
    starts = np.searchsorted(sends[:, 0], base + np.arange(len(log.requests) + 1))
    parts: list[Errors] = []
    for trace in result.traces():
        if not trace.is_ok:
            continue
        serial = serials[trace.index]
        mine = sends[starts[serial - base] : starts[serial - base + 1]]
        if len(mine) != len(trace.stamp_ns):
            raise MeasurementError(
                f"The truth server sent {len(mine)} events of request "
                f"{trace.index}, {len(trace.stamp_ns)} were recorded."
            )
        first = (trace.sent_before_ns, arrivals[serial])
        shared = (trace.flags & Event.COALESCED) != 0
        parts.append(_errors_of(trace.stamp_ns, shared, mine, first, itl_s))
    names = [field.name for field in dataclasses.fields(Errors)]
    return Errors(
        *(np.concatenate([getattr(p, name) for p in parts]) for name in names)
    )


def _errors_of(
    stamps: Array, shared: Array, sends: Array, first: tuple[int, int], itl_s: float
) -> Errors:
    sent, arrival = first
    before, after = sends[:, 2], sends[:, 3]
    from_send = outside(stamps - sent, before - arrival, after - arrival)
    gaps = outside(np.diff(stamps), before[1:] - after[:-1], after[1:] - before[:-1])
    alone = ~(shared[1:] | shared[:-1])
    planned = before[0] + np.arange(len(before)) * itl_s * 1e9
    return Errors(from_send[:1], gaps, gaps[alone], from_send[-1:], before - planned)


def outside(values: Array, low: Array, high: Array) -> Array:
    """Return the distance of each value outside [low, high], 0 inside."""
    distance: Array = np.maximum(np.maximum(low - values, values - high), 0)
    return distance


def plan_requests(rhythm: Rhythm, duration_s: float) -> tuple[int, int]:
    """Return how many requests of how many events fill `duration_s`, two waves at
    least."""
    events = int(max((duration_s / 2 - rhythm.ttft_s) / rhythm.itl_s, 1)) + 1
    events = min(events, max(rhythm.output_tokens, 2))
    each_s = rhythm.ttft_s + (events - 1) * rhythm.itl_s
    waves = max(int(duration_s / each_s), 2)
    return min(waves * rhythm.concurrency, 20_000), events


def calibrate(
    rhythm: Rhythm, *, duration_s: float = 2.0, **options: Any
) -> Calibration:
    """Measure the instrument at `rhythm` for about `duration_s` seconds.

    Args:
        options: Passed on to `run_load`: the engine and so on.
    """
    count, events = plan_requests(rhythm, duration_s)
    times = ("--ttft-ms", f"{rhythm.ttft_s * 1e3}", "--itl-ms", f"{rhythm.itl_s * 1e3}")
    prompts = [Prompt(text=f"a {k} b", output_tokens=events) for k in range(count)]
    point = LoadPoint(
        concurrency=min(rhythm.concurrency, count), requests=count, min_waves=1
    )
    with truth_server(*times) as server:
        target = Target(url=server.url, model="truth")
        result = run_load(target, point, prompts, **options)
        log = server.take_log()
    return describe(rhythm, result, log)


def describe(rhythm: Rhythm, result: LoadResult, log: TruthLog) -> Calibration:
    """Return the calibration that a run against the truth amounts to.

    Raises:
        MeasurementError: no request of it succeeded.
    """
    if not result.counts().get("ok"):
        raise MeasurementError(f"The calibration run failed: {result.counts()}.")
    errors = compare(result, log, rhythm.itl_s)
    instrument = result.instrument
    return Calibration(
        rhythm=rhythm,
        ttft=Spread.of(errors.ttft),
        itl=Spread.of(errors.itl),
        itl_alone=Spread.of(errors.itl_alone),
        e2e=Spread.of(errors.e2e),
        coalesced_share=instrument.coalesced_share,
        send_width_p99_s=instrument.send_width_p99_s,
        read_lag_p99_s=instrument.read_lag_p99_s,
        cpu_share=instrument.cpu_share,
        run_queue_s=instrument.run_queue_s,
        load_average=instrument.load_average,
        stamp_source=instrument.stamp_source,
        scheduling=instrument.scheduling,
        requests=len(errors.ttft),
        events=len(errors.late),
        server_late_p99_s=Spread.of(errors.late).p99_s,
        measured_at_s=time.time(),
    )


def default_cache() -> Path:
    """Return the folder in which calibrations of this user are kept."""
    home = os.environ.get("XDG_CACHE_HOME") or expand("~/.cache")
    return Path(home) / "pytest-pd" / "calibration"


def cached(
    rhythm: Rhythm,
    *,
    directory: Path | None = None,
    make: Callable[[Rhythm], Calibration] = calibrate,
    clock: Callable[[], float] = time.time,
    may_be_old: bool = True,
    kind: str = "auto-1-auto",
) -> Calibration:
    """Return the calibration of this host at `rhythm`, measured within the hour.

    Args:
        may_be_old: False measures again, and replaces what was kept.
        kind: Engine and shards, where they are not the usual ones.
    """
    try:
        folder = directory or default_cache()
    except SpecError:  # a user without a home keeps nothing
        return make(rhythm)
    path = folder / f"{_key(rhythm, kind)}.json"
    try:
        found = Calibration.from_json(json.loads(path.read_text()))
        if may_be_old and 0 <= clock() - found.measured_at_s < CACHE_S:
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass  # absent, or of an older make: measure
    made = make(rhythm)
    with suppress(OSError):  # what cannot be kept is measured again the next time
        _keep(path, made)
    return made


def _keep(path: Path, made: Calibration) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    try:
        partial.write_text(json.dumps(made.as_json()))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _key(rhythm: Rhythm, kind: str) -> str:
    parts = [VERSION, kind, platform.node(), os.cpu_count(), platform.release()]
    words = json.dumps([*parts, dataclasses.asdict(rhythm)])
    return hashlib.sha256(words.encode()).hexdigest()[:16]
