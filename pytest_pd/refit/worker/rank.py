"""The life of one rank: set up, plan, refit again and again, check every bit."""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from pytest_pd.refit.job import Job, RankReport, report_path
from pytest_pd.refit.transfer import Transfer, gaps, shards
from pytest_pd.refit.worker import probe
from pytest_pd.refit.worker.engine import Engine
from pytest_pd.refit.worker.plain import PlainExchange
from pytest_pd.refit.worker.variants import Parts, parts_of
from pytest_pd.refit.worker.weights import Weights

MAX_LINES = 20
"""Findings kept per rank; the count of all is in the last line."""


@dataclass(slots=True)
class _State:
    job: Job
    rank: int
    report: RankReport
    parts: Parts
    source: Weights
    target: Weights
    plan: list[Transfer]
    engine: Engine
    wrong: int = 0


def run_rank(job: Job, rank: int) -> RankReport:
    """Run one rank and write its report, with the error if there is one."""
    report_path(Path(job.out_dir), rank).unlink(missing_ok=True)
    report = RankReport(rank, os.getpid(), socket.gethostname(), launch=job.launch)
    report.cores = len(os.sched_getaffinity(0))
    report.versions = {"python": sys.version.split()[0], "torch": torch.__version__}
    try:
        _run(job, rank, report)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        report.error = (
            f"{type(error).__name__}: {error} ({Path(where.filename).name}:"
            f"{where.lineno})"
        )
        traceback.print_exc()
    finally:
        report.save(Path(job.out_dir))
        if dist.is_initialized() and not report.error:
            dist.destroy_process_group()
    return report


def _run(job: Job, rank: int, report: RankReport) -> None:
    torch.set_num_threads(1)
    device = _device(job, rank)
    start = time.perf_counter()
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=job.rendezvous,
        rank=rank,
        world_size=job.world,
        timeout=timedelta(seconds=job.timeout_s),
    )
    state = _set_up(job, rank, report, device)
    report.service_init_s = time.perf_counter() - start - report.plan_build_s
    _measure_machine(state)
    _iterate(state)
    _measure_machine(state)
    for line in state.source.wrong(job.warmup + job.iterations):
        report.source_changed.append(line)
    _ask_opinions(state)
    state.engine.close()


def _device(job: Job, rank: int) -> torch.device:
    if job.device == "cpu":
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", rank)))
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def _set_up(job: Job, rank: int, report: RankReport, device: torch.device) -> _State:
    parts = parts_of(job, rank)
    source = Weights(shards(job.kinds, job.source, rank), job.element_bytes, device)
    target = Weights(shards(job.kinds, job.target, rank), job.element_bytes, device)
    source.fill(0)
    report.target_bytes = target.nbytes
    start = time.perf_counter()
    plan = list(parts.transfers(rank))
    report.plan_build_s = time.perf_counter() - start
    report.gaps = _gaps(plan, target, rank)[:MAX_LINES]
    parts.engine.prepare(plan, source, target)
    report.staging_bytes = parts.engine.staging_bytes
    return _State(job, rank, report, parts, source, target, plan, parts.engine)


def _gaps(plan: Sequence[Transfer], target: Weights, rank: int) -> list[str]:
    writes: dict[int, list[Transfer]] = defaultdict(list)
    for transfer in plan:
        if transfer.target == rank:
            writes[transfer.write].append(transfer)
    told = (gaps(writes[i], shard) for i, shard in target.shards.items())
    return [line for line in told if line]


def _measure_machine(state: _State) -> None:
    clock, report = state.parts.clock, state.report
    dist.barrier()
    if state.job.device == "cpu":
        if state.rank == 0:
            report.memcpy_byte_s = max(report.memcpy_byte_s, probe.memcpy_byte_s(clock))
        dist.barrier()
        rate = probe.loopback_byte_s(clock, state.rank)
        report.loopback_byte_s = max(report.loopback_byte_s, rate)
        sync = probe.clock_sync(clock, state.rank)
        if report.samples_s:
            report.clock_stop = sync
        else:
            report.clock_start = sync
    dist.barrier()


def _iterate(state: _State) -> None:
    job, report = state.job, state.report
    plain = PlainExchange(state.plan, state.source, state.target) if job.plain else None
    total = job.warmup + job.iterations
    report.memory_before_bytes = probe.reset_peak(state.source.device)
    for iteration in range(total + 1):
        if iteration:
            state.source.advance(iteration - 1, iteration)
        state.target.poison()
        elapsed_s = _timed_refit(state, timed=iteration > job.warmup)
        if iteration == 0:
            report.first_refit_s = elapsed_s
        elif iteration <= job.warmup:
            report.warmup_s.append(elapsed_s)
        else:
            report.samples_s.append(elapsed_s)
        if iteration == 0:
            report.memory_peak_bytes = probe.peak_bytes(state.source.device)
        _check(state, iteration)
        if plain and iteration > job.warmup:
            report.plain_s.append(plain.exchange(state.parts.clock))


def _timed_refit(state: _State, *, timed: bool) -> float:
    clock = state.parts.clock
    state.engine.meter.reset()
    dist.barrier()
    start = clock()
    state.engine.refit()
    if state.source.device.type == "cuda":
        torch.cuda.synchronize()
    stop = clock()
    dist.barrier()
    if timed:
        state.report.starts_ns.append(start)
        state.report.stops_ns.append(stop)
    return (stop - start) / 1e9


def _check(state: _State, iteration: int) -> None:
    report, meter = state.report, state.engine.meter
    for line in state.target.wrong(iteration):
        state.wrong += 1
        if state.wrong <= MAX_LINES:
            report.wrong.append(f"iteration {iteration}: {line}")
    report.checked_elements += sum(s.elements for s in state.target.shards.values())
    report.sent, report.received = dict(meter.sent), dict(meter.received)
    report.messages = meter.messages


def _ask_opinions(state: _State) -> None:
    if state.job.opinions:
        from pytest_pd.refit.worker.opinion import OPINIONS

        last = state.job.warmup + state.job.iterations
        for name in state.job.opinions:
            state.report.opinions[name] = OPINIONS[name](
                state.job, state.rank, state.source, state.target, last
            )
            dist.barrier()
