"""Which way bytes went between nodes: RDMA, NVLink or TCP. Pure.

A KV transfer that cannot use the fabric may fall back to TCP, and then everything
works, slowly. Counters of the nodes from before and after tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

RDMA_WORD_BYTES = 4
"""``port_rcv_data`` counts words of four bytes (InfiniBand, PortCounters)."""

KIB = 1024
LOOPBACK = "lo"
TCP_SHARE = 0.5
"""More than this share of the KV by TCP is a fall-back and no control traffic."""


@dataclass(frozen=True, slots=True)
class Wire:
    """Bytes that nodes received so far, by way.

    Attributes:
        tcp: Over network interfaces, loopback left out.
        rdma: Over ports of ``/sys/class/infiniband``; None where there are none.
        nvlink: Over NVLink; None where nobody says.
    """

    tcp: int
    rdma: int | None = None
    nvlink: int | None = None

    def since(self, before: Wire) -> Wire:
        """Return what came in since an earlier look."""
        return Wire(
            self.tcp - before.tcp,
            _difference(self.rdma, before.rdma),
            _difference(self.nvlink, before.nvlink),
        )


def _difference(now: int | None, before: int | None) -> int | None:
    return None if now is None or before is None else now - before


def wire_of(facts: Iterable[Mapping[str, Any]]) -> Wire:
    """Return the sum over what nodes said (`node_facts`, key ``wire``)."""
    tcp, rdma, nvlink = 0, None, None
    for said in facts:
        texts = said["wire"]
        tcp += tcp_bytes(texts["net_dev"])
        rdma = _sum(rdma, rdma_bytes(texts["rdma"]))
        nvlink = _sum(nvlink, nvlink_bytes(texts["nvlink"]))
    return Wire(tcp, rdma, nvlink)


def _sum(one: int | None, other: int | None) -> int | None:
    return other if one is None else one + (other or 0)


def tcp_bytes(net_dev: str) -> int:
    """Return the bytes that ``/proc/net/dev`` says came in, loopback left out."""
    rows = re.findall(r"^\s*([^\s:]+):\s*(\d+)", net_dev, re.MULTILINE)
    return sum(int(count) for name, count in rows if name != LOOPBACK)


def rdma_bytes(ports: Mapping[str, str]) -> int | None:
    """Return the bytes that came in over RDMA ports; None without a counter."""
    words = [int(text) for text in ports.values() if text.isdigit()]
    return RDMA_WORD_BYTES * sum(words) if words else None


def nvlink_bytes(text: str) -> int | None:
    """Return what ``nvidia-smi nvlink -gt d`` says came in; None if it says nothing."""
    found = re.findall(r"Link \d+: Data Rx:\s*(\d+) KiB", text)
    return KIB * sum(map(int, found)) if found else None


def fell_back(moved: Wire, alone: Wire, kv_bytes: int) -> str:
    """Return why the KV did not take the fabric; empty when it did.

    What the fabric carried proves nothing: collectives of TP and EP take it as well,
    and carry more than the KV.

    Args:
        moved: While requests were handed over.
        alone: While as many, as long, were answered by one worker: what TCP carries
            for other reasons.
        kv_bytes: Of the requests that were handed over.
    """
    if moved.rdma is None and moved.nvlink is None:
        return ""  # without counters of a fabric there is nothing to fall back from
    more = moved.tcp - alone.tcp
    if more <= TCP_SHARE * kv_bytes:
        return ""
    return (
        f"{kv_bytes} bytes of KV were handed over, and the nodes received {more} more "
        "by TCP than for requests that one worker answers"
    )
