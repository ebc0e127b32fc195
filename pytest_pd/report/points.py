"""The measured points of runs: what one load gave, all metrics together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_pd.plan.model import WORKERS
from pytest_pd.report.read import Entry, RunRecord

WORKER_ROLES = tuple(str(role.value) for role in WORKERS)


@dataclass(frozen=True, slots=True)
class Point:
    """One load on one topology.

    Attributes:
        run_id: Of the run that measured it.
        entries: Metric to entry.
        gpus: That the topology used; 0 on CPU.
        workers: Prefill, decode and aggregated services.
    """

    run_id: str
    topology: str
    workload: str
    label: str
    entries: Mapping[str, Entry]
    gpus: int
    workers: int

    @property
    def any(self) -> Entry:
        """One of the entries, for what all have in common."""
        return next(iter(self.entries.values()))

    @property
    def concurrency(self) -> float | None:
        return self.any.concurrency

    @property
    def is_valid(self) -> bool:
        return all(entry.is_valid for entry in self.entries.values())

    def statistic_s(self, metric: str, name: str) -> float | None:
        """Return one statistic of one metric, None when it was not measured."""
        entry = self.entries.get(metric)
        return entry.statistics().get(name) if entry else None

    def human(self, metric: str, name: str) -> float | None:
        """Return a figure that was stored beside a metric."""
        entry = self.entries.get(metric)
        value = entry.info.get(name) if entry else None
        return float(value) if isinstance(value, int | float) else None

    @property
    def tokens_per_s(self) -> float | None:
        return self.human("output_token_time", "tokens_per_s")

    @property
    def tokens_per_s_per_user(self) -> float | None:
        """Speed of decoding one user sees: 1 / median TPOT."""
        return self.human("tpot", "tokens_per_s_per_user")

    @property
    def tokens_per_s_per_device(self) -> float | None:
        """Throughput per GPU; per worker where there are no GPUs."""
        share = self.gpus or self.workers
        return self.tokens_per_s / share if self.tokens_per_s and share else None


def points_of(runs: Iterable[RunRecord]) -> list[Point]:
    """Return the points of all runs, by topology, workload and load."""
    found: list[Point] = []
    for run in runs:
        for topology in run.topologies:
            grouped: dict[tuple[str, str], dict[str, Entry]] = {}
            for entry in topology.entries:
                if entry.point:
                    key = (entry.test, entry.point)
                    grouped.setdefault(key, {})[entry.metric] = entry
            for (_, name), entries in grouped.items():
                workload, _, label = name.partition(":")
                gpus, workers = size_of(topology.plan)
                found.append(
                    Point(
                        run_id=run.run_id,
                        topology=topology.name,
                        workload=workload,
                        label=label,
                        entries=entries,
                        gpus=gpus,
                        workers=workers,
                    )
                )
    return sorted(found, key=_order)


def size_of(plan: Mapping[str, Any]) -> tuple[int, int]:
    """Return GPUs in use and workers of a plan as it lies in ``plan.json``."""
    gpus = sum(int(node.get("gpus_used", 0)) for node in plan.get("nodes", ()))
    roles = [service.get("role") for service in plan.get("services", ())]
    return gpus, sum(role in WORKER_ROLES for role in roles)


def _order(point: Point) -> tuple[str, str, str, float, str]:
    pace = point.concurrency or float(point.any.load.get("rate_per_s") or 0)
    return point.run_id, point.topology, point.workload, pace, point.label
