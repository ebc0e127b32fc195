"""The one door to the load generator: `run_load`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pytest_pd.errors import SpecError
from pytest_pd.load.engine import Counters
from pytest_pd.load.gpu import together, watched_gpus
from pytest_pd.load.point import LoadPoint
from pytest_pd.load.prompts import Prompt
from pytest_pd.load.record import Array, Event, Outcome, Phase, Recorder, events_of
from pytest_pd.load.result import Instrument, LoadResult
from pytest_pd.load.shard import Job, ShardOutcome, deal, make_recorder, run_share
from pytest_pd.load.shards import run_shards
from pytest_pd.load.target import Target
from pytest_pd.load.validity import invalid_reasons, used_up


def run_load(
    target: Target,
    offered: LoadPoint,
    prompts: Sequence[Prompt],
    *,
    tokenizer: str = "unknown",
    engine: str = "auto",
    shards: int | Sequence[Sequence[str]] = 1,
    scheduling: str = "auto",
    directory: Path | None = None,
    on_tick: Callable[[Counters], None] | None = None,
) -> LoadResult:
    """Send `prompts` to `target` as `offered` says and return what was recorded.

    Args:
        target: OpenAI-compatible endpoint.
        offered: How many at a time, or when.
        prompts: Warm-up prompts first, then the measured ones.
        tokenizer: What counted the prompts' tokens, for the record.
        engine: ``kernel``, ``httpx``, or ``auto`` for the best that this host has.
        shards: Load processes. 1 runs in this one; a number starts that many here;
            a sequence of command prefixes, for example ``("ssh", "node2")``, starts
            one with each.
        scheduling: ``auto`` runs the loop at real-time priority where that is
            allowed; ``normal`` never does.
        directory: Map the record into files there, so that it outlives a
            killed process; None keeps it in memory.
        on_tick: Called 10 times a second with the counters.

    Raises:
        SpecError: too few prompts, or a point that cannot be.
        InfrastructureLost: the host name does not resolve.
    """
    _check_supply(offered, prompts)
    started_at_s = time.time()
    job = Job(target, offered, tuple(prompts))
    if shards == 1:
        recorder, outcomes = _run_here(job, engine, scheduling, directory, on_tick)
    else:
        recorder, outcomes = run_shards(
            job,
            shards,
            engine=engine,
            scheduling=scheduling,
            directory=directory,
            on_tick=on_tick,
        )
    return make_result(job, recorder, outcomes, tokenizer, started_at_s)


def _run_here(
    job: Job,
    engine: str,
    scheduling: str,
    directory: Path | None,
    on_tick: Callable[[Counters], None] | None,
) -> tuple[Recorder, list[ShardOutcome]]:
    (share,) = deal(job.point, job.prompts, 1)
    recorder = make_recorder(job.prompts, directory)
    with watched_gpus(judged=job.target.gpus) as gpus:
        outcome = run_share(
            job.target,
            share,
            job.prompts,
            recorder,
            engine=engine,
            scheduling=scheduling,
            on_tick=on_tick,
        )
    return recorder, [replace(outcome, gpus=gpus.report())]


def make_result(
    job: Job,
    recorder: Recorder,
    outcomes: Sequence[ShardOutcome],
    tokenizer: str,
    started_at_s: float,
) -> LoadResult:
    """Return the result of a record, judged."""
    if job.target.fixes_length:
        asked = [prompt.output_tokens for prompt in job.prompts]
        recorder.requests["asked_tokens"] = asked
    gpus = together([outcome.gpus for outcome in outcomes])
    instrument = describe_instrument(recorder.requests, recorder.columns, outcomes)
    result = LoadResult(
        point=job.point,
        url=job.target.url,
        model=job.target.model,
        endpoint=job.target.endpoint,
        tokenizer=tokenizer,
        started_at_s=started_at_s,
        requests=recorder.requests,
        columns={name: c[: recorder.used] for name, c in recorder.columns.items()},
        texts=bytes(recorder.texts),
        errors=recorder.errors,
        instrument=replace(instrument, gpus=gpus.figures),
    )
    reasons = (*invalid_reasons(result), *used_up(result), *gpus.reasons)
    return replace(result, reasons=reasons)


def _check_supply(offered: LoadPoint, prompts: Sequence[Prompt]) -> None:
    wanted = offered.warmup + (offered.requests or 1)
    if len(prompts) < wanted:
        raise SpecError(
            f"{len(prompts)} prompts cannot feed {offered.warmup} warm-up and "
            f"{offered.requests or 1} measured requests.",
            hint=f"make {wanted} prompts",
        )


def _quantiles(values: Array, *shares: float) -> list[float]:
    if not len(values):
        return [0.0 for _ in shares]
    found = np.quantile(values, shares, method="inverted_cdf")
    return [float(value) / 1e9 for value in found]


def send_lag_s(rows: Array) -> list[float]:
    """Return p50 and p99 of actual minus intended send, in seconds."""
    return _quantiles(rows["sent_before_ns"] - rows["intended_ns"], 0.5, 0.99)


def describe_instrument(
    requests: Array,
    columns: Mapping[str, Array],
    outcomes: Sequence[ShardOutcome],
) -> Instrument:
    """Return what the client knows of its own error."""
    rows = requests[
        (requests["phase"] == Phase.MEASURED) & (requests["outcome"] > Outcome.NOT_SENT)
    ]
    events = events_of(rows)
    flags, lags = columns["flags"][events], columns["lag_ns"][events]
    is_content = (flags & Event.CONTENT) != 0
    contents = max(int(is_content.sum()), 1)
    user = int((is_content & ((flags & Event.USER_STAMP) != 0)).sum())
    shared = int((is_content & ((flags & Event.COALESCED) != 0)).sum())
    send_lag = send_lag_s(rows)
    width = _quantiles(rows["sent_after_ns"] - rows["sent_before_ns"], 0.5, 0.99)
    read_lag = _quantiles(lags[is_content].astype("i8"), 0.5, 0.99, 1.0)
    hosts = [outcome.host for outcome in outcomes]
    counters = [outcome.counters for outcome in outcomes]
    source = "kernel" if user == 0 else "user" if user == contents else "mixed"
    return Instrument(
        engine=outcomes[0].engine,
        stamp_source=source,
        user_stamp_share=user / contents,
        coalesced_share=shared / contents,
        send_lag_p50_s=send_lag[0],
        send_lag_p99_s=send_lag[1],
        send_width_p50_s=width[0],
        send_width_p99_s=width[1],
        read_lag_p50_s=read_lag[0],
        read_lag_p99_s=read_lag[1],
        read_lag_max_s=read_lag[2],
        cpu_share=max(host.cpu_share for host in hosts),
        cpu_s=sum(host.cpu_s for host in hosts),
        run_queue_s=sum(host.run_queue_s for host in hosts),
        steal_s=max(host.steal_s for host in hosts),
        load_average=max(host.load_average for host in hosts),
        cores=max(host.cores for host in hosts),
        collections=sum(host.collections for host in hosts),
        clock_steps=sum(outcome.clock_steps for outcome in outcomes),
        connections_opened=sum(c.connections for c in counters),
        retries=sum(c.retries for c in counters),
        most_in_flight=sum(c.most_in_flight for c in counters),
        shards=len(outcomes),
        scheduling="/".join(sorted({o.scheduling for o in outcomes})),
        clock_uncertainty_s=max(o.clock_uncertainty_s for o in outcomes),
        peak_rss_bytes=sum(host.peak_rss_bytes for host in hosts),
    )
