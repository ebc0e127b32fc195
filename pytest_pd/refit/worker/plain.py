"""The yardstick: the same bytes between the same processes, with nothing else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
import torch.distributed as dist

from pytest_pd.refit.transfer import Transfer, elements_of
from pytest_pd.refit.worker.probe import Clock
from pytest_pd.refit.worker.weights import FLOATS, Weights

TAG = 1 << 20
"""Apart from the tags of the engines."""


class PlainExchange:
    """One buffer per pair of ranks, as large as what the plan moves between them.

    Local copies are made too, in one piece.
    """

    def __init__(
        self, plan: Sequence[Transfer], source: Weights, target: Weights
    ) -> None:
        rank = dist.get_rank()
        out: dict[int, int] = defaultdict(int)
        into: dict[int, int] = defaultdict(int)
        for each in plan:
            if each.source == rank:
                out[each.target] += elements_of(each, source.shards[each.read])
            if each.target == rank:
                into[each.source] += elements_of(each, target.shards[each.write])
        dtype = FLOATS[source.element_bytes]
        self._rank = rank

        def buffers(sizes: dict[int, int]) -> dict[int, torch.Tensor]:
            # Written to, so that every page is memory of its own: untouched zeros
            # would all be read from one page that stays in the cache.
            return {
                peer: torch.full((size,), 1.0).to(dtype) for peer, size in sizes.items()
            }

        self._out, self._into = buffers(out), buffers(into)

    def exchange(self, clock: Clock) -> float:
        """Exchange once and return the seconds it took this rank. Collective."""
        dist.barrier()
        start = clock()
        works = [
            dist.irecv(buffer, peer, tag=TAG)
            for peer, buffer in self._into.items()
            if peer != self._rank
        ]
        works += [
            dist.isend(buffer, peer, tag=TAG)
            for peer, buffer in self._out.items()
            if peer != self._rank
        ]
        if self._rank in self._out:
            self._into[self._rank].copy_(self._out[self._rank])
        for work in works:
            work.wait()
        stop = clock()
        dist.barrier()
        return (stop - start) / 1e9
