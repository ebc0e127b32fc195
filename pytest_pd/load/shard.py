"""One load process: a share of the prompts, an engine, and a record of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pytest_pd.load.arrivals import arrival_offsets_ns
from pytest_pd.load.choice import Engine, make_engine
from pytest_pd.load.clock import NS
from pytest_pd.load.dispatch import ClosedLoop, Dispatcher, OpenLoop
from pytest_pd.load.engine import Counters
from pytest_pd.load.gpu import GpuReport
from pytest_pd.load.host import (
    HostSample,
    HostShare,
    many_files,
    prompt_scheduling,
    quiet_collector,
)
from pytest_pd.load.point import LoadPoint
from pytest_pd.load.prompts import Prompt, total_output_tokens
from pytest_pd.load.record import Array, Outcome, Phase, Recorder
from pytest_pd.load.settle import Settler
from pytest_pd.load.target import Target

EXTRA_EVENTS = 8
"""Role, usage and finish events beside one per token."""
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
    clock_steps: int = 0
    engine: str = "kernel"
    clock_uncertainty_s: float = 0.0
    scheduling: str = "normal"
    gpus: GpuReport = field(default_factory=GpuReport)


@dataclass(frozen=True, slots=True)
class Job:
    """A whole load run: what goes where, and how."""

    target: Target
    point: LoadPoint
    prompts: tuple[Prompt, ...]


def deal(point: LoadPoint, prompts: Sequence[Prompt], shards: int) -> list[Share]:
    """Return the shares of `shards` processes: one schedule, dealt in turn.

    A conversation stays whole. There are never more shards than streams.
    """
    if point.concurrency is not None:
        shards = min(shards, point.concurrency)
    wanted = len(prompts)
    if point.requests is not None:
        wanted = min(wanted, point.warmup + point.requests)
    measured = range(point.warmup, wanted)
    firsts = [k for k in measured if prompts[k].follows is None]
    offsets = np.zeros(len(firsts), np.int64)
    if point.is_open:
        offsets = arrival_offsets_ns(point, [prompts[k] for k in firsts])
    owner = {k: turn % shards for turn, k in enumerate(firsts)}
    for k in measured:
        previous = prompts[k].follows
        if previous is not None:
            owner[k] = owner[previous]
    return [
        Share(
            point=point,
            indices=(
                *range(number, point.warmup, shards),
                *(k for k in measured if owner[k] == number),
            ),
            offsets_ns=offsets[number::shards],
            concurrency=_part(point.concurrency, shards, number),
            warmup=len(range(number, point.warmup, shards)),
            number=number,
        )
        for number in range(shards)
    ]


def _part(total: int | None, shards: int, number: int) -> int | None:
    if total is None:
        return None
    return total // shards + (number < total % shards)


def make_recorder(prompts: Sequence[Prompt], directory: Path | None) -> Recorder:
    """Return a record with room for every event that `prompts` ask for."""
    events = total_output_tokens(prompts) + EXTRA_EVENTS * len(prompts)
    return Recorder(len(prompts), events, directory=directory)


def run_share(
    target: Target,
    share: Share,
    prompts: Sequence[Prompt],
    recorder: Recorder,
    *,
    engine: str = "auto",
    scheduling: str = "auto",
    wait_start: Callable[[], int] | None = None,
    on_tick: Callable[[Counters], None] | None = None,
) -> ShardOutcome:
    """Warm up, wait for the common start, and run a share to its end.

    Args:
        scheduling: See `prompt_scheduling`.
        wait_start: Called when this shard is ready; returns the monotonic ns at
            which all shards start. None starts at once.
        on_tick: Called 10 times a second from the loop: must be quick.
    """
    settler = Settler(recorder, prompts, shard=share.number)
    loop = make_engine(engine, target, prompts, settler, share.point.timeout_s)
    try:
        with (
            many_files(),
            quiet_collector(),
            prompt_scheduling(scheduling) as policy,
        ):
            _warm_up(loop, settler, share, prompts, recorder)
            start_ns = wait_start() if wait_start else time.monotonic_ns() + LEAD_NS
            settler.phase = Phase.MEASURED
            loop.on_tick = on_tick
            measured = share.indices[share.warmup :]
            before = HostSample.take()
            loop.run(_make_dispatcher(share, prompts, measured, start_ns))
            host = HostShare.between(before, HostSample.take())
            _mark_unsent(recorder, measured, share.point)
    finally:
        loop.close()
    return ShardOutcome(
        loop.counters, host, loop.clock_steps, loop.name, scheduling=policy
    )


def _warm_up(
    loop: Engine,
    settler: Settler,
    share: Share,
    prompts: Sequence[Prompt],
    recorder: Recorder,
) -> None:
    streams = share.concurrency or min(len(share.indices), 64)
    loop.open_connections(min(streams, len(share.indices)))
    indices = share.indices[: share.warmup]
    if indices:
        settler.phase = Phase.WARMUP
        now = time.monotonic_ns()
        loop.run(ClosedLoop(prompts, indices, start_ns=now, concurrency=streams))
    loop.counters.done = loop.counters.failed = 0
    loop.counters.most_in_flight = 0


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
