"""The tensors of one rank: filled, changed, poisoned and checked bit by bit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from pytest_pd.refit.content import expected, salt
from pytest_pd.refit.transfer import Shard

FLOATS = {1: torch.float8_e4m3fn, 2: torch.bfloat16, 4: torch.float32}
INTS = {1: torch.int8, 2: torch.int16, 4: torch.int32}

POISON = -1
"""All bits set: a NaN with the sign bit, which content never has."""

CACHE_BYTES = 2 << 30
"""Up to this size a rank keeps its expected bits instead of recomputing them."""


class Weights:
    """The shards of one side on one rank.

    Args:
        shards: What the rank holds.
        element_bytes: 1, 2 or 4: FP8, BF16, FP32.
        device: Where the tensors live.
    """

    def __init__(
        self, shards: Iterable[Shard], element_bytes: int, device: torch.device
    ) -> None:
        self.shards = {shard.index: shard for shard in shards}
        self.element_bytes = element_bytes
        self.device = device
        self.tensors = dict(self._carve())
        self._base: dict[int, torch.Tensor] = {}

    def _carve(self) -> Iterator[tuple[int, torch.Tensor]]:
        # One arena in the order of the tensors, as engines with flat weight buffers
        # have it: neighbours that go to one rank can travel as one message.
        sizes = [shard.elements for shard in self.shards.values()]
        dtype = FLOATS[self.element_bytes]
        arena = torch.empty(sum(sizes), dtype=dtype, device=self.device)
        for part, (index, shard) in zip(
            arena.split(sizes), self.shards.items(), strict=True
        ):
            yield index, part.view(shard.shape)

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def bits(self, index: int) -> torch.Tensor:
        """Return the tensor's memory as integers, not a copy."""
        return self.tensors[index].view(INTS[self.element_bytes])

    def fill(self, iteration: int) -> None:
        """Write the content of `iteration`."""
        for index, shard in self.shards.items():
            mix = salt(shard.name, iteration, self.element_bytes)
            for rows, value in self._expected(shard):
                self.bits(index)[rows] = value ^ mix

    def advance(self, before: int, after: int) -> None:
        """Turn the content of iteration `before` into that of `after`, in place."""
        for index, shard in self.shards.items():
            change = salt(shard.name, before, self.element_bytes)
            change ^= salt(shard.name, after, self.element_bytes)
            self.bits(index).bitwise_xor_(change)

    def poison(self) -> None:
        """Make every element wrong."""
        for index in self.shards:
            self.bits(index).fill_(POISON)

    def wrong(self, iteration: int) -> Iterator[str]:
        """Yield one line per tensor that does not hold the content of `iteration`."""
        keep = self.device.type == "cpu" and self.nbytes <= CACHE_BYTES
        for index, shard in self.shards.items():
            if keep and self._matches_cache(index, iteration):
                continue
            if told := self._compare(index, iteration):
                yield f"{shard.name} shard {shard.part} of {shard.parts}: {told}"

    def _matches_cache(self, index: int, iteration: int) -> bool:
        shard = self.shards[index]
        if index not in self._base:
            base = torch.empty(shard.shape, dtype=INTS[self.element_bytes])
            for rows, value in self._expected(shard):
                base[rows] = value.to(base.dtype)
            self._base[index] = base
        mix = salt(shard.name, iteration, self.element_bytes)
        return bool(torch.equal(self.bits(index) ^ mix, self._base[index]))

    def _compare(self, index: int, iteration: int) -> str:
        shard = self.shards[index]
        mix = salt(shard.name, iteration, self.element_bytes)
        count, poisoned, first = 0, 0, ""
        for rows, value in self._expected(shard):
            got = self.bits(index)[rows].to(torch.int64)
            differs = got != (value ^ mix)
            count += int(differs.sum())
            poisoned += int((got == POISON).sum())
            if not first and count:
                row, col = (int(i) for i in differs.nonzero()[0])
                first = f"first at row {row + rows.start}, column {col}"
        if not count:
            return ""
        never = f", {poisoned} of them never written" if poisoned else ""
        return f"{count} of {shard.elements} elements wrong{never}, {first}"

    def _expected(self, shard: Shard) -> Iterator[tuple[slice, torch.Tensor]]:
        def arange(start: int, stop: int) -> torch.Tensor:
            return torch.arange(start, stop, dtype=torch.int64, device=self.device)

        return expected(shard, self.element_bytes, arange)
