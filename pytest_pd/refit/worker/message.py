"""Runs of weights that travel together: cut alike on both ranks, packed if need be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch.distributed import Work

MESSAGE_BYTES = 1 << 20
"""Runs are gathered up to this size.

One packed message then stays in a second-level cache between packing and sending,
and the next one is packed while this one travels.
"""


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

    def parts(self, buffer: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the pieces of a flat buffer that the runs fill, in their shapes."""
        pieces = buffer.split([run.numel() for run in self.runs])
        return tuple(
            piece.view(run.shape) for run, piece in zip(self.runs, pieces, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Staged:
    """A message with its place in a buffer, made once: views cost more than copies."""

    message: Message
    buffer: torch.Tensor
    parts: tuple[torch.Tensor, ...]

    @classmethod
    def of(cls, message: Message, buffer: torch.Tensor) -> Staged:
        """Give a message the first elements of a flat buffer."""
        mine = buffer[: message.elements]
        return cls(message, mine, message.parts(mine))

    def pack(self) -> None:
        """Copy the runs into the buffer, in one call."""
        copy_all(self.parts, self.message.runs)

    def unpack(self) -> None:
        """Copy the buffer into the runs, in one call."""
        copy_all(self.message.runs, self.parts)


def copy_all(into: Sequence[torch.Tensor], out_of: Sequence[torch.Tensor]) -> None:
    """Copy tensors pair by pair without a turn of the interpreter for each."""
    if into:
        torch._foreach_copy_(into, out_of)


def _groups(runs: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
    # By sizes alone: both ranks see runs of the same sizes in the same order.
    groups: list[list[torch.Tensor]] = []
    room = 0
    for run in runs:
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
        count = min(slots, len(packed))
        size = max((m.elements for m in packed), default=0)
        self._buffers = [packed[0].runs[0].new_empty(size) for _ in range(count)]
        self._staged = [
            Staged.of(message, self._buffers[number % count])
            for number, message in enumerate(packed)
        ]
        self._busy: list[Work | None] = [None] * count
        self._next = 0

    @property
    def nbytes(self) -> int:
        return int(sum(buffer.nbytes for buffer in self._buffers))

    def send(self, post: Callable[[torch.Tensor], Work | None]) -> None:
        """Pack the next message into its slot and post it."""
        staged = self._staged[self._next]
        slot = self._next % len(self._buffers)
        self._next += 1
        self._free(slot)
        staged.pack()
        self._busy[slot] = post(staged.buffer)

    def drain(self) -> None:
        """Wait until all slots are free; the first message is next again."""
        for slot in range(len(self._buffers)):
            self._free(slot)
        self._next = 0

    def _free(self, slot: int) -> None:
        work, self._busy[slot] = self._busy[slot], None
        if work is not None:
            work.wait()
