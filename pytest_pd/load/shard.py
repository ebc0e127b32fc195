"""One load process: a share of the prompts, an engine, and a record of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pytest_pd.load.arrivals import arrival_offsets_ns
from pytest_pd.load.clock import NS
from pytest_pd.load.dispatch import ClosedLoop, Dispatcher, OpenLoop
from pytest_pd.load.engine import Counters, KernelEngine
from pytest_pd.load.host import HostSample, HostShare, quiet_collector
from pytest_pd.load.point import LoadPoint
from pytest_pd.load.prompts import Prompt
from pytest_pd.load.record import Array, Outcome, Phase, Recorder
from pytest_pd.load.settle import Settler
from pytest_pd.load.target import Target

LEAD_NS = NS // 500
"""Between "start" and the first request: everybody shall be ready."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one load process has to do.

    Attributes:
        point: The whole point, of all shards together.
        indices: Prompts of this shard in the order of their start.
        offsets_ns: Intended starts of those that follow none; empty in a
            closed loop.
        concurrency: Streams of this shard; None for no cap.
        warmup: How many of `indices` warm up.
        number: Of this shard.
    """

    point: LoadPoint
    indices: tuple[int, ...]
    offsets_ns: Array
    concurrency: int | None
    warmup: int = 0
    number: int = 0


@dataclass(frozen=True, slots=True)
class ShardOutcome:
    """What a load process reports beside its record."""

    counters: Counters
    host: HostShare
    clock_steps: int


def make_share(point: LoadPoint, prompts: Sequence[Prompt]) -> Share:
    """Return the share of a single process: everything."""
    wanted = len(prompts)
    if point.requests is not None:
        wanted = min(wanted, point.warmup + point.requests)
    indices = tuple(range(wanted))
    firsts = [prompts[k] for k in indices[point.warmup :] if prompts[k].follows is None]
    offsets = (
        arrival_offsets_ns(point, firsts) if point.is_open else np.zeros(0, np.int64)
    )
    return Share(point, indices, offsets, point.concurrency, point.warmup)


def run_share(
    target: Target,
    share: Share,
    prompts: Sequence[Prompt],
    recorder: Recorder,
    *,
    wait_start: Callable[[], int] | None = None,
    on_tick: Callable[[Counters], None] | None = None,
) -> ShardOutcome:
    """Warm up, wait for the common start, and run a share to its end.

    Args:
        wait_start: Called when this shard is ready; returns the monotonic ns at
            which all shards start. None starts at once.
        on_tick: Called 20 times a second from the loop: must be quick.
    """
    settler = Settler(recorder, prompts, shard=share.number)
    engine = KernelEngine(target, prompts, settler, timeout_s=share.point.timeout_s)
    engine.on_tick = on_tick
    try:
        with quiet_collector():
            _warm_up(engine, settler, share, prompts, recorder)
            start_ns = wait_start() if wait_start else time.monotonic_ns() + LEAD_NS
            settler.phase = Phase.MEASURED
            measured = share.indices[share.warmup :]
            before = HostSample.take()
            engine.run(_make_dispatcher(share, prompts, measured, start_ns))
            host = HostShare.between(before, HostSample.take())
            _mark_unsent(recorder, measured, share.point)
    finally:
        engine.close()
    return ShardOutcome(engine.counters, host, engine.offset.steps)


def _warm_up(
    engine: KernelEngine,
    settler: Settler,
    share: Share,
    prompts: Sequence[Prompt],
    recorder: Recorder,
) -> None:
    streams = share.concurrency or min(len(share.indices), 64)
    engine.open_connections(min(streams, len(share.indices)))
    indices = share.indices[: share.warmup]
    if indices:
        settler.phase = Phase.WARMUP
        now = time.monotonic_ns()
        engine.run(ClosedLoop(prompts, indices, start_ns=now, concurrency=streams))
    engine.counters.done = engine.counters.failed = 0
    engine.counters.most_in_flight = 0


def _make_dispatcher(
    share: Share, prompts: Sequence[Prompt], indices: Sequence[int], start_ns: int
) -> Dispatcher:
    point = share.point
    stop_ns = None
    if point.duration_s is not None:
        stop_ns = start_ns + int(point.duration_s * NS)
    if point.is_open:
        return OpenLoop(
            prompts,
            indices,
            start_ns=start_ns,
            offsets_ns=[int(o) for o in share.offsets_ns],
            cap=share.concurrency,
            stop_ns=stop_ns,
        )
    return ClosedLoop(
        prompts,
        indices,
        start_ns=start_ns,
        concurrency=share.concurrency or 1,
        ramp_s=point.ramp_s,
        stop_ns=stop_ns,
    )


def _mark_unsent(recorder: Recorder, indices: Sequence[int], point: LoadPoint) -> None:
    """With a fixed number, a request nobody sent belongs to the run as missing."""
    if point.duration_s is not None:
        return
    for index in indices:
        if recorder.requests[index]["outcome"] == Outcome.NOT_SENT:
            recorder.requests[index]["phase"] = Phase.MEASURED
