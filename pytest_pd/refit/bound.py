"""Lower bounds on the time of a refit: no plan and no engine can be faster.

Latency, message rate, switch contention and memory copies are left out, and any
placement of forwarding inside a domain is allowed, so the true time is higher.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pytest_pd.refit.cells import Cells
from pytest_pd.refit.traffic import by_domain, element_counts
from pytest_pd.spec.refit import RefitCluster

GB = 1e9


@dataclass(frozen=True, slots=True)
class Bound:
    """Times in seconds and the bytes behind them; `_gb` is 10**9 bytes.

    Attributes:
        in_s: Slowest domain to take in what none of its GPUs holds, once, by
            all its NICs.
        out_s: Fullest domain to give away what only it holds, or all domains
            that hold something to give away everything.
        gpu_s: Slowest GPU to take what it lacks, by scale-up link and NIC.
        pull_s: Slowest GPU if each pulls its own bytes through its own NIC.
        need_gb, missing_gb: Largest share of a GPU; what of it is not there.
        domain_in_gb: Per NIC of the slowest domain.
        total_gb: Sum over the target's ranks of what is not there.
    """

    in_s: float
    out_s: float
    gpu_s: float
    pull_s: float
    need_gb: float
    missing_gb: float
    missing_mean_gb: float
    domain_in_gb: float
    total_gb: float

    @property
    def bound_s(self) -> float:
        return max(self.in_s, self.out_s, self.gpu_s)


def make_bound(cells: Cells, cluster: RefitCluster, element_bytes: float) -> Bound:
    """Return the bound of moving `cells` on `cluster`."""
    width = cluster.domain_gpus
    sizes = np.diff(np.append(np.arange(0, cells.ranks, width), cells.ranks))
    gb = element_bytes / GB
    held, needed = by_domain(cells.held, width), by_domain(cells.needed, width)
    enters = element_counts(needed & ~held, cells) * gb
    per_nic = enters / sizes
    need = element_counts(cells.needed, cells) * gb
    missing = element_counts(cells.needed & ~cells.held, cells) * gb
    outside = cells.needed & ~np.repeat(held, sizes, axis=1)
    pull = element_counts(outside, cells) * gb
    links = cluster.scale_up_gbyte_s + cluster.nic_gbyte_s
    gpu_s = float(missing.max()) / links
    receivers = int(cells.needed.any(axis=0).sum())
    return Bound(
        in_s=float(per_nic.max()) / cluster.nic_gbyte_s,
        out_s=_out_s(cells, cluster, sizes, element_bytes),
        gpu_s=gpu_s,
        pull_s=max(float(pull.max()) / cluster.nic_gbyte_s, gpu_s),
        need_gb=float(need.max()),
        missing_gb=float(missing.max()),
        missing_mean_gb=float(missing.sum()) / receivers,
        domain_in_gb=float(per_nic.max()),
        total_gb=float(missing.sum()),
    )


def _out_s(
    cells: Cells,
    cluster: RefitCluster,
    sizes: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    element_bytes: float,
) -> float:
    width = cluster.domain_gpus
    held, needed = by_domain(cells.held, width), by_domain(cells.needed, width)
    copies = (needed & ~held).sum(axis=1)
    leaves = copies * cells.elements
    only_here = held & (held.sum(axis=1) == 1)[:, None]
    forced = only_here.T.astype(np.int64) @ leaves
    givers = sizes[held.any(axis=0)].sum()
    elements = max(float((forced / sizes).max()), float(leaves.sum()) / float(givers))
    return elements * element_bytes / GB / cluster.nic_gbyte_s


def verdict(claimed_ms: tuple[float, float], bound_s: float) -> str:
    """Judge an estimate: ``impossible``, ``partly`` or ``possible``."""
    low, high = claimed_ms
    bound_ms = bound_s * 1e3
    if high < bound_ms:
        return "impossible"
    return "partly" if low < bound_ms else "possible"
