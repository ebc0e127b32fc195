"""KV leaves or enters the pool here and nowhere else, so faults strike here too."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from pytest_pd.reference.faults import Fault, Faults
from pytest_pd.reference.kvpool import KvPool, Stored
from pytest_pd.reference.wire import TransferError


class Mover:
    """Reads and writes whole blocks of the pool, as told faithful or not.

    Pages have the shape (layers, 2, blocks, kv_heads, block_size, head_dim).
    """

    def __init__(self, pool: KvPool, faults: Faults) -> None:
        self.pool = pool
        self._faults = faults
        self._last: Stored | None = None

    def send(self, blocks: Sequence[int]) -> Stored:
        """Return the pages of `blocks` for another engine.

        Raises:
            TransferError: a fault withholds them.
        """
        return self._through_faults(self.pool.export(blocks))

    def receive(self, blocks: Sequence[int], pages: Stored) -> None:
        """Write pages of another engine to `blocks`.

        Raises:
            TransferError: a fault withholds them.
        """
        self.pool.restore(blocks, self._through_faults(pages))

    def _through_faults(self, pages: Stored) -> Stored:
        last, self._last = self._last, pages
        damaged = pages
        for fault in self._faults.fire("kv"):
            if fault.kind == "kv_not_sent":
                raise TransferError("KV is withheld: a fault on purpose.")
            if fault.kind == "kv_late":
                time.sleep(float(fault.options["seconds"]))
            else:
                damaged = damage(fault, damaged, last)
        return damaged


def damage(fault: Fault, pages: Stored, last: Stored | None) -> Stored:
    """Return a copy of `pages` with what `fault` does to them.

    Args:
        fault: A kind of the seam ``kv`` that changes what is moved.
        pages: What would have been moved.
        last: What was moved the time before; None at the first time.
    """
    older = _fitted(last, pages)
    if fault.kind == "kv_swap":
        return older
    harmed = pages.copy()
    block = int(fault.options["block"]) % pages.shape[2]
    if fault.kind == "kv_stale":
        harmed[:, :, block] = older[:, :, block]
    if fault.kind == "kv_truncated":
        harmed[:, :, block:] = 0
    if fault.kind == "kv_bit_flip":
        layer, head = int(fault.options["layer"]), int(fault.options["head"])
        bits = harmed.view(f"u{harmed.itemsize}")
        mask = 1 << int(fault.options["bit"]) % (8 * harmed.itemsize)
        bits[layer % len(bits), :, block, head % bits.shape[3]] ^= bits.dtype.type(mask)
    return harmed


def _fitted(last: Stored | None, pages: Stored) -> Stored:
    """Return older pages with as many blocks as `pages`; zeros where there are none."""
    older = np.zeros_like(pages)
    if last is not None:
        shared = min(last.shape[2], pages.shape[2])
        older[:, :, :shared] = last[:, :, :shared]
    return older
