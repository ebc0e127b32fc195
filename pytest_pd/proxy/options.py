"""Everything that can be said about a proxy, as data."""

from __future__ import annotations

from dataclasses import dataclass, field

from pytest_pd.proxy.ask import Transfer
from pytest_pd.proxy.fault import Fault
from pytest_pd.proxy.worker import Address


@dataclass(frozen=True, slots=True)
class ProxyOptions:
    """Options of one proxy; the command line documents each.

    Attributes:
        rate_limit_rps: Requests a second, 0 for no limit.
        rate_burst: Requests that may come at once; 0: as many as in one second.
        max_concurrent: Requests served at the same time, 0 for no limit.
        failure_threshold: Failures in a row after which a worker is down.
        api_key: Key for requests without one; never shown.
    """

    prefill: tuple[Address, ...]
    decode: tuple[Address, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    policy: str = "round_robin"
    transfer: Transfer = Transfer.AUTO
    rate_limit_rps: float = 0.0
    rate_burst: float = 0.0
    max_concurrent: int = 0
    max_queue: int = 1024
    queue_timeout_s: float = 60.0
    retries: int = 2
    connect_timeout_s: float = 2.0
    idle_timeout_s: float = 300.0
    health_interval_s: float = 1.0
    health_timeout_s: float = 2.0
    failure_threshold: int = 2
    drain_timeout_s: float = 5.0
    max_body_bytes: int = 256 * 2**20
    api_key: str = field(default="", repr=False)
    faults: tuple[Fault, ...] = ()
    allow_faults: bool = False
