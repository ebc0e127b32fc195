"""How bytes travel: one seam, and the engine that needs torch.distributed only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.distributed as dist

from pytest_pd.refit.transfer import Transfer
from pytest_pd.refit.worker.message import Message, Ring, Staged, copy_all, in_turn
from pytest_pd.refit.worker.weights import Weights


@dataclass(slots=True)
class Meter:
    """Bytes by peer, counted at the call that moves them."""

    sent: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    received: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    messages: int = 0

    def reset(self) -> None:
        """Start a new count."""
        self.sent.clear()
        self.received.clear()
        self.messages = 0


class Engine(Protocol):
    """Moves weights as a plan says; one instance per rank and job."""

    meter: Meter

    @property
    def staging_bytes(self) -> int:
        """Buffers it keeps beside the weights."""

    def prepare(
        self, plan: Sequence[Transfer], source: Weights, target: Weights
    ) -> None:
        """Take the transfers that touch this rank, in the order of their tasks."""

    def refit(self) -> None:
        """Move everything once; on return the own target is complete."""

    def close(self) -> None:
        """Release buffers and connections."""


def view(
    tensors: Weights, index: int, dim: int, start: int, length: int
) -> torch.Tensor:
    """Return the run of a shard that a transfer reads or writes, not a copy."""
    return tensors.tensors[index].narrow(dim, start, length)


def ends(
    transfer: Transfer, source: Weights, target: Weights, rank: int
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return what this rank reads and what it writes for one transfer."""
    read = write = None
    if transfer.source == rank:
        at = (transfer.read, transfer.dim, transfer.read_start, transfer.length)
        read = view(source, *at)
    if transfer.target == rank:
        at = (transfer.write, transfer.dim, transfer.write_start, transfer.length)
        write = view(target, *at)
    return read, write


class P2PEngine:
    """Plain sends and receives of torch.distributed; on CPU over gloo."""

    def __init__(self) -> None:
        self.meter = Meter()
        self._sends: list[Message] = []
        self._receives: list[Staged] = []
        self._local: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
        self._ring = Ring(())

    @property
    def staging_bytes(self) -> int:
        waiting = [each for each in self._receives if each.message.whole is None]
        return int(sum(each.buffer.nbytes for each in waiting)) + self._ring.nbytes

    def prepare(
        self, plan: Sequence[Transfer], source: Weights, target: Weights
    ) -> None:
        rank = dist.get_rank()
        out: dict[int, list[torch.Tensor]] = defaultdict(list)
        into: dict[int, list[torch.Tensor]] = defaultdict(list)
        for transfer in plan:
            read, write = ends(transfer, source, target, rank)
            if read is not None and write is not None:
                self._local[0].append(read)
                self._local[1].append(write)
            elif read is not None:
                out[transfer.target].append(read)
            elif write is not None:
                into[transfer.source].append(write)
        self._sends = in_turn(out)
        self._ring = Ring(self._sends)
        for message in in_turn(into):
            whole = message.whole
            if whole is None:
                whole = message.runs[0].new_empty(message.elements)
            self._receives.append(Staged.of(message, whole))

    def refit(self) -> None:
        arriving = [self._receive(each) for each in self._receives]
        leaving = [work for m in self._sends if (work := self._send(m)) is not None]
        self._copy_local()
        for each, work in zip(self._receives, arriving, strict=True):
            if work is not None:
                work.wait()
            if each.message.whole is None:
                each.unpack()
        for work in leaving:
            work.wait()
        self._ring.drain()

    def _copy_local(self) -> None:
        reads, writes = self._local
        copy_all(writes, reads)
        rank = dist.get_rank()
        self.meter.sent[rank] += sum(read.nbytes for read in reads)
        self.meter.received[rank] += sum(write.nbytes for write in writes)

    def _receive(self, each: Staged) -> dist.Work | None:
        peer = each.message.peer
        self.meter.received[peer] += each.buffer.nbytes
        return dist.irecv(each.buffer, peer, tag=each.message.tag)

    def _send(self, message: Message) -> dist.Work | None:
        self.meter.sent[message.peer] += message.nbytes
        self.meter.messages += 1

        def post(buffer: torch.Tensor) -> dist.Work | None:
            return dist.isend(buffer, message.peer, tag=message.tag)

        if message.whole is not None:
            return post(message.whole)
        # Every rank has posted its receives before, so a full ring drains by itself.
        self._ring.send(post)
        return None

    def close(self) -> None:
        self._sends.clear()
        self._receives.clear()
        self._local = ([], [])
