"""Weights whose every bit is known: a closed form of (tensor name, global index).

A rank can check its own shard without asking anybody, so nothing that the system
under test says is taken as truth. The functions take arrays of numpy or torch alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any

from pytest_pd.refit.transfer import Shard

# Odd 64-bit constants as signed integers (golden ratio, and Stafford's mix 13):
# int64 multiplication wraps in numpy and in torch.
_SPREAD = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX = 0xBF58476D1CE4E5B9 - (1 << 64)
_STEP = 0x9E37

CHUNK_ELEMENTS = 1 << 20
"""Elements generated at a time, to bound the memory of the int64 work arrays."""


def tensor_key(name: str) -> int:
    """Return a 63-bit number that stands for a tensor's global name."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") >> 1


def mask(element_bytes: int) -> int:
    """Return the bits that content may use: all but the sign bit."""
    return (1 << (8 * element_bytes - 1)) - 1


def salt(name: str, iteration: int, element_bytes: int) -> int:
    """Return what iteration `iteration` is XORed with; differs from its neighbours."""
    return (tensor_key(name) + iteration * _STEP) & mask(element_bytes)


def bits(index: Any, key: int, element_bytes: int) -> Any:
    """Return pseudo-random bits for global flat indices.

    Args:
        index: int64 array of any shape.
        key: The tensor's key.

    Returns:
        int64 array, same shape, 0 <= value <= `mask`; never the poison, which
        has the sign bit.
    """
    x = index * _SPREAD + key
    x = (x ^ (x >> 31)) * _MIX
    return (x >> 33) & mask(element_bytes)


def row_runs(shard: Shard) -> Iterator[tuple[int, int, int]]:
    """Yield (local row, global row, rows) of each contiguous run of rows."""
    kind = shard.kind
    if kind.dim == 1:
        yield 0, 0, kind.rows
        return
    block = kind.rows // kind.blocks
    rows = block // shard.parts
    for number in range(kind.blocks):
        yield number * rows, number * block + shard.part * rows, rows


def expected(
    shard: Shard, element_bytes: int, arange: Callable[[int, int], Any]
) -> Iterator[tuple[slice, Any]]:
    """Yield (local rows, bits) of a shard at iteration 0, in chunks of whole rows.

    Args:
        shard: Which part of which tensor.
        arange: ``arange(start, stop)`` as int64 on the device to work on.
    """
    key, cols = tensor_key(shard.name), shard.shape[1]
    first_col = shard.part * cols if shard.kind.dim == 1 else 0
    columns = arange(first_col, first_col + cols)[None, :]
    step = max(1, CHUNK_ELEMENTS // cols)
    for local, start, rows in row_runs(shard):
        for at in range(0, rows, step):
            stop = min(rows, at + step)
            index = arange(start + at, start + stop)[:, None] * shard.kind.cols
            place = slice(local + at, local + stop)
            yield place, bits(index + columns, key, element_bytes)
