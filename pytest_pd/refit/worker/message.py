"""Runs of weights that travel together: cut alike on both ranks, packed if need be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch.distributed import Work

MESSAGE_BYTES = 1 << 20
"""Runs are gathered up to this size.

One packed message then stays in a second-level cache between packing and sending,
and the next one is packed while this one travels.
"""
ALONE_BYTES = 128 << 10
"""A run of this size is a message of its own, so that it need not be packed."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message to or from a peer.

    Attributes:
        tag: Number of the message between the two ranks.
        runs: Its parts of the weights.
        whole: The runs as one piece of memory where they lie like that, so that
            nothing has to be packed.
    """

    peer: int
    tag: int
    runs: tuple[torch.Tensor, ...]
    whole: torch.Tensor | None

    @property
    def elements(self) -> int:
        return sum(run.numel() for run in self.runs)

    @property
    def nbytes(self) -> int:
        return sum(run.nbytes for run in self.runs)

    def pack(self, buffer: torch.Tensor) -> None:
        """Copy the runs into a flat buffer."""
        for run, part in self._parts(buffer):
            part.copy_(run)

    def unpack(self, buffer: torch.Tensor) -> None:
        """Copy a flat buffer into the runs."""
        for run, part in self._parts(buffer):
            run.copy_(part)

    def _parts(
        self, buffer: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        sizes = [run.numel() for run in self.runs]
        for run, part in zip(self.runs, buffer.split(sizes), strict=True):
            yield run, part.view(run.shape)


def _groups(runs: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
    # By sizes alone: both ranks see runs of the same sizes in the same order.
    groups: list[list[torch.Tensor]] = []
    room = 0
    for run in runs:
        if run.nbytes >= ALONE_BYTES:
            groups.append([run])
            room = 0
            continue
        if run.nbytes > room:
            groups.append([])
            room = MESSAGE_BYTES
        groups[-1].append(run)
        room -= run.nbytes
    return groups


def _as_one(runs: Sequence[torch.Tensor]) -> torch.Tensor | None:
    first, end = runs[0], runs[0].data_ptr()
    for run in runs:
        if not run.is_contiguous() or run.data_ptr() != end:
            return None
        end += run.nbytes
    elements = sum(run.numel() for run in runs)
    return torch.as_strided(first, (elements,), (1,))


def messages(peer: int, runs: Sequence[torch.Tensor]) -> list[Message]:
    """Return the messages that carry `runs` to or from `peer`."""
    return [
        Message(peer, tag, tuple(group), _as_one(group))
        for tag, group in enumerate(_groups(runs))
    ]


def in_turn(runs: Mapping[int, Sequence[torch.Tensor]]) -> list[Message]:
    """Return the messages of all peers, one of each peer at a time."""
    by_peer = [messages(peer, some) for peer, some in runs.items()]
    rounds = zip_longest(*by_peer)
    return [m for one_round in rounds for m in one_round if m is not None]


class Ring:
    """A few buffers in turn; a slot is free again when its last send is done.

    Every work is waited for exactly once: gloo counts completions, and a second
    wait for the same send would never end.
    """

    def __init__(self, messages: Sequence[Message], *, slots: int = 4) -> None:
        packed = [m for m in messages if m.whole is None]
        sizes = [max((m.elements for m in packed), default=0)] * min(slots, len(packed))
        self._buffers = [packed[0].runs[0].new_empty(size) for size in sizes]
        self._busy: list[Work | None] = [None] * len(sizes)
        self._at = 0

    @property
    def nbytes(self) -> int:
        return int(sum(buffer.nbytes for buffer in self._buffers))

    def send(
        self, message: Message, post: Callable[[torch.Tensor], Work | None]
    ) -> None:
        """Pack a message into the next slot and post it."""
        slot = self._at
        self._at = (slot + 1) % len(self._buffers)
        self._free(slot)
        part = self._buffers[slot][: message.elements]
        message.pack(part)
        self._busy[slot] = post(part)

    def drain(self) -> None:
        """Wait until all slots are free."""
        for slot in range(len(self._buffers)):
            self._free(slot)

    def _free(self, slot: int) -> None:
        work, self._busy[slot] = self._busy[slot], None
        if work is not None:
            work.wait()
