"""Refits that are wrong on purpose: each must be caught, here or on your cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from pytest_pd.refit.job import Job
from pytest_pd.refit.transfer import Transfer, tensors
from pytest_pd.refit.worker.engine import Engine, Meter
from pytest_pd.refit.worker.variants import Parts, own_transfers
from pytest_pd.refit.worker.weights import Weights


class Around:
    """An engine that hands everything on to another one."""

    def __init__(self, inner: Engine) -> None:
        self.inner = inner
        self.meter: Meter = inner.meter
        self.target: Weights | None = None

    @property
    def staging_bytes(self) -> int:
        return self.inner.staging_bytes

    def prepare(
        self, plan: Sequence[Transfer], source: Weights, target: Weights
    ) -> None:
        self.target = target
        self.inner.prepare(plan, source, target)

    def refit(self) -> None:
        self.inner.refit()

    def close(self) -> None:
        self.inner.close()


class _NoOp(Around):
    def refit(self) -> None:
        """Move nothing."""


class _Stale(Around):
    """Keeps one tensor as the first refit brought it."""

    kept: tuple[int, torch.Tensor] | None = None

    def refit(self) -> None:
        self.inner.refit()
        if self.target is None or not self.target.tensors:
            return
        if self.kept is None:
            index = min(self.target.tensors)
            self.kept = index, self.target.tensors[index].clone()
        index, old = self.kept
        self.target.tensors[index].copy_(old)


class _HalfPrecision(Around):
    """Sends as FP16 what is BF16, as an engine with a wrong wire dtype would."""

    def refit(self) -> None:
        self.inner.refit()
        for tensor in self.target.tensors.values() if self.target else ():
            tensor.copy_(tensor.to(torch.float16))


class _Hang(Around):
    """Never comes back."""

    def refit(self) -> None:
        threading.Event().wait()


def _hang(job: Job, rank: int, parts: Parts) -> None:
    if rank == job.world - 1:
        parts.engine = _Hang(parts.engine)


def _noop(job: Job, rank: int, parts: Parts) -> None:
    parts.engine = _NoOp(parts.engine)


def _stale(job: Job, rank: int, parts: Parts) -> None:
    if rank == job.world - 1:
        parts.engine = _Stale(parts.engine)


def _dtype(job: Job, rank: int, parts: Parts) -> None:
    if rank == job.world - 1:
        parts.engine = _HalfPrecision(parts.engine)


def _stride_one(job: Job, rank: int, parts: Parts) -> None:
    """Take a gated fc1 for one block, as a missing partition_stride makes Megatron."""
    wrong = replace(job, kinds=tuple(replace(k, blocks=1) for k in job.kinds))
    parts.transfers = lambda which: own_transfers(wrong, which)


def _expert_shift(job: Job, rank: int, parts: Parts) -> None:
    """Read every expert from its neighbour in the source's group."""
    shifted: dict[int, int] = {}
    for number, kind, _, expert in tensors(job.kinds):
        share = max(1, kind.experts // job.source.ep)
        neighbour = expert // share * share + (expert % share + 1) % share
        shifted[number] = number + neighbour - expert
    lister = parts.transfers
    parts.transfers = lambda which: [
        replace(t, read=shifted[t.read]) for t in lister(which)
    ]


def _drop(job: Job, rank: int, parts: Parts) -> None:
    """Leave one transfer between two ranks out, on both of them."""
    between = [t.task for t in own_transfers(job, None) if t.source != t.target]
    lost = between[len(between) // 2]
    lister = parts.transfers
    parts.transfers = lambda which: [t for t in lister(which) if t.task != lost]


def _lose(job: Job, rank: int, parts: Parts) -> None:
    """Leave the same transfer out on the sender only: the receiver waits."""
    between = [t for t in own_transfers(job, None) if t.source != t.target]
    lost = between[len(between) // 2]
    lister = parts.transfers
    if rank == lost.source:
        parts.transfers = lambda which: [
            t for t in lister(which) if t.task != lost.task
        ]


def _skew(job: Job, rank: int, parts: Parts) -> None:
    """Let the last rank's clock run at half speed."""
    if rank == job.world - 1:
        clock, start = parts.clock, parts.clock()
        parts.clock = lambda: start + (clock() - start) // 2


MUTANTS: dict[str, Callable[[Job, int, Parts], None]] = {
    "clock_skew": _skew,
    "drop_message": _drop,
    "dtype_change": _dtype,
    "expert_shift": _expert_shift,
    "hang": _hang,
    "lost_message": _lose,
    "noop": _noop,
    "stale_tensor": _stale,
    "stride_one": _stride_one,
}
"""Name, as in `pytest_pd.refit.names`, to what puts the fault into a rank's parts."""
