"""A window around requests: what every worker says it did in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pytest_pd.plan.model import WORKERS, Endpoint, Role
from pytest_pd.plan.seam import EvidenceNames, RouterWitness
from pytest_pd.probe.evidence import Delta, Snapshot, WorkerEvidence

SETTLE_S = 5.0
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Window:
    """What changed between two snapshots, by worker and by role.

    Attributes:
        endpoints: Of the whole topology, router included.
        names: How its engine names its counters.
        router: How its router says which workers served.
    """

    delta: Delta
    endpoints: Sequence[Endpoint]
    names: EvidenceNames
    router: RouterWitness | None = None

    def of_role(self, role: Role) -> dict[str, WorkerEvidence]:
        """Return the evidence of each worker of a role, by service name."""
        return {
            endpoint.service: self.delta.worker(endpoint.service, self.names)
            for endpoint in self.endpoints
            if endpoint.role is role
        }

    def total(self, role: Role, counter: str) -> float | None:
        """Return a counter's growth over a role; None when nobody counts it."""
        values = [getattr(e, counter) for e in self.of_role(role).values()]
        known = [value for value in values if value is not None]
        return sum(known) if known else None

    def lost(self) -> dict[str, str]:
        """Return the services whose counters say nothing of this window, and why.

        A worker is lost without both of its pages, or when it was restarted. A
        router may have no page at all: only one that is there once is missed.
        """
        before, after = self.delta.before.failed, self.delta.after.failed
        found = {}
        for endpoint in self.endpoints:
            name, works = endpoint.service, endpoint.role in WORKERS
            why = after.get(name) or before.get(name)
            if why and (works or (name in before) != (name in after)):
                found[name] = why
            elif works and self.delta.was_reset(name, self.names):
                found[name] = "it was restarted: its counters began anew"
        return found

    def without_log(self, role: Role) -> list[str]:
        """Return the services of a role whose log is not on this machine."""
        services = {e.service for e in self.endpoints if e.role is role}
        return sorted(services - set(self.delta.after.logs))

    def foreign_requests(self, own: int) -> int | None:
        """Return how many requests in the window were not ours.

        Args:
            own: Requests that we sent inside the window.

        Returns:
            None when no worker counts its requests.
        """
        roles = {endpoint.role for endpoint in self.endpoints}
        last = Role.DECODE if Role.DECODE in roles else Role.AGGREGATED
        served = self.total(last, "requests")
        return None if served is None else max(0, round(served) - own)

    def routed(self, role: Role) -> Mapping[str, float]:
        """Return requests per worker as the router's counters say.

        A router that counts all workers together gives one entry, ``all``.
        """
        if self.router is None:
            return {}
        prefill = role is Role.PREFILL
        query = self.router.prefill_requests if prefill else self.router.decode_requests
        found: dict[str, float] = {}
        for endpoint in self.endpoints:
            if endpoint.role is not Role.ROUTER or not query:
                continue
            if label := self.router.worker_label:
                found |= self.delta.by_label(endpoint.service, query, label)
            elif (grown := self.delta.increase(endpoint.service, query)) is not None:
                found["all"] = found.get("all", 0.0) + grown
        return found


def settle(
    take: Callable[[], Snapshot],
    seen: Callable[[Snapshot], float],
    *,
    rest_s: float = 0.0,
    timeout_s: float = SETTLE_S,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Snapshot:
    """Take snapshots until two in a row, and all for `rest_s`, say the same.

    Engines publish counters a step late: a request is answered before it counts.

    Args:
        seen: What must have come to rest, for example the sum of all counters.

    Returns:
        The last snapshot, also when time ran out.
    """
    started_s = changed_s = clock()
    snapshot = take()
    value = seen(snapshot)
    while clock() - started_s < timeout_s + rest_s:
        sleep(POLL_S)
        snapshot = take()
        if (now := seen(snapshot)) != value:
            value, changed_s = now, clock()
        elif clock() - changed_s >= rest_s:
            break
    return snapshot
