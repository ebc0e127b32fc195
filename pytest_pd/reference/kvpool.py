"""The paged KV cache: its numbers (`KvPool`) and its owners (`BlockTable`)."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_pd.reference.shape import ModelShape

Floats = NDArray[np.float64]
Stored = NDArray[np.generic]
"""Elements as they are kept and moved: float16, float32, or bfloat16 bits."""

_HALF_ULP_BF16 = 0x7FFF


class KvPool:
    """Blocks of K and V of all layers.

    Values are rounded to the KV type when they are written and kept as float32, so
    that reading them needs no conversion from float16.

    Attributes:
        data: Shape (layers, 2, blocks, kv_heads, block_size, head_dim), float32.
    """

    def __init__(
        self, shape: ModelShape, *, blocks: int, block_size: int, dtype: str
    ) -> None:
        self.shape = shape
        self.block_size = block_size
        self.dtype = dtype
        size = (shape.layers, 2, blocks, shape.kv_heads, block_size, shape.head_dim)
        self.data = np.zeros(size, np.float32)

    def write(
        self, layer: int, kv: int, blocks: Any, offsets: Any, values: Floats
    ) -> None:
        """Store `values` (tokens, kv_heads, head_dim) at their blocks and offsets."""
        self.data[layer, kv, blocks, :, offsets] = self._rounded(values)

    def read(
        self, layer: int, kv: int, blocks: NDArray[np.intp], tokens: int
    ) -> Floats:
        """Return (kv_heads, tokens, head_dim) of the first `tokens` in `blocks`."""
        pages = self.data[layer, kv][blocks].transpose(1, 0, 2, 3)
        heads, _, _, dim = pages.shape
        found: Floats = pages.reshape(heads, -1, dim)[:, :tokens].astype(np.float64)
        return found

    def export(self, blocks: Sequence[int]) -> Stored:
        """Return a copy of whole blocks, in the KV type.

        Shape (layers, 2, blocks, kv_heads, block_size, head_dim).
        """
        pages = self.data[:, :, list(blocks)]
        if self.dtype == "bfloat16":
            return (pages.view(np.uint32) >> 16).astype(np.uint16)
        return pages.astype(storage_dtype(self.dtype))

    def restore(self, blocks: Sequence[int], pages: Stored) -> None:
        """Write whole blocks that `export` of an engine like this one returned."""
        if self.dtype == "bfloat16":
            pages = (pages.astype(np.uint32) << 16).view(np.float32)
        self.data[:, :, list(blocks)] = pages

    def _rounded(self, values: Floats) -> Stored:
        if self.dtype == "bfloat16":
            bits = values.astype(np.float32).view(np.uint32)
            bits = bits + _HALF_ULP_BF16 + (bits >> 16 & 1)
            return (bits & 0xFFFF0000).astype(np.uint32).view(np.float32)
        return values.astype(storage_dtype(self.dtype))


def storage_dtype(dtype: str) -> np.dtype[Any]:
    """Return the numpy type of stored elements; bfloat16 is kept as its bits."""
    if dtype == "bfloat16":
        return np.dtype(np.uint16)
    return np.dtype(np.float32 if dtype in ("float32", "float") else np.float16)


def block_hashes(tokens: Sequence[int], block_size: int) -> Iterator[bytes]:
    """Yield the hash of each whole block; each depends on all blocks before it."""
    parent = b""
    for end in range(block_size, len(tokens) + 1, block_size):
        block = np.asarray(tokens[end - block_size : end], np.int32).tobytes()
        parent = hashlib.blake2b(block, digest_size=16, key=parent).digest()
        yield parent


class BlockTable:
    """Owners of the blocks and the prefix cache over them.

    A block without owner keeps its content and can be found again by its hash until
    it is handed out anew: the one that was free longest goes first.
    """

    def __init__(self, blocks: int, *, caching: bool) -> None:
        self.total = blocks
        self._caching = caching
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(blocks))
        self._owners = [0] * blocks
        self._by_hash: dict[bytes, int] = {}
        self._hash_of: dict[int, bytes] = {}

    @property
    def free(self) -> int:
        """Blocks that nobody owns."""
        return len(self._free)

    @property
    def used_fraction(self) -> float:
        """Owned blocks over all blocks, 0 to 1."""
        return 1 - self.free / self.total

    def take(self, count: int) -> list[int] | None:
        """Hand out `count` blocks, or none at all if so many are not free."""
        if count > self.free:
            return None
        taken = [self._free.popitem(last=False)[0] for _ in range(count)]
        for block in taken:
            self._owners[block] = 1
            if (known := self._hash_of.pop(block, None)) is not None:
                del self._by_hash[known]
        return taken

    def share(self, hashes: Sequence[bytes]) -> list[int]:
        """Become an owner of the longest run of cached blocks from the first on."""
        found = []
        for known in hashes:
            block = self._by_hash.get(known)
            if block is None:
                break
            found.append(block)
        for block in found:
            self._owners[block] += 1
            self._free.pop(block, None)
        return found

    def give_back(self, blocks: Sequence[int]) -> None:
        """Stop owning `blocks`; the last ones are handed out anew first."""
        for block in reversed(blocks):
            self._owners[block] -= 1
            if self._owners[block] == 0:
                self._free[block] = None

    def remember(self, block: int, known: bytes) -> None:
        """Let a full block be found by its hash; the first of equal ones stays."""
        if self._caching and known not in self._by_hash and block not in self._hash_of:
            self._by_hash[known] = block
            self._hash_of[block] = known

    def forget_all(self) -> None:
        """Empty the prefix cache; owners keep their blocks."""
        self._by_hash.clear()
        self._hash_of.clear()
