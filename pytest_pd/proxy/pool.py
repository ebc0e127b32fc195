"""The workers of one role, and who of them is next."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pytest_pd.proxy.policy import Policy
from pytest_pd.proxy.worker import Health, Role, Worker


@dataclass(frozen=True, slots=True)
class Pool:
    """Workers of one role with the policy that chooses among them."""

    role: Role
    workers: tuple[Worker, ...]
    policy: Policy

    def candidates(self, *, without: Collection[Worker] = ()) -> list[Worker]:
        """Return the workers not known to be down and not in `without`."""
        return [
            worker
            for worker in self.workers
            if worker.health is not Health.DOWN and worker not in without
        ]

    def healthy(self) -> Sequence[Worker]:
        """Return the workers whose last sign of life was good."""
        return [worker for worker in self.workers if worker.health is Health.UP]

    def counts(self) -> dict[str, int]:
        """Return ``{"healthy": n, "total": m}`` as vllm-router words it."""
        return {"healthy": len(self.healthy()), "total": len(self.workers)}
