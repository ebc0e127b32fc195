"""Everything known about a refit before it runs: bytes, bound, memory, verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_pd.errors import SpecError
from pytest_pd.refit.bound import GB, Bound, make_bound, verdict
from pytest_pd.refit.cells import Cells, make_cells
from pytest_pd.refit.choice import Chooser, megatron, nearest
from pytest_pd.refit.tensors import grids, tensor_kinds
from pytest_pd.refit.traffic import Traffic, element_counts, make_traffic
from pytest_pd.spec.refit import DTYPE_BYTES, ModelShape, RefitCluster, RefitScenario

CHOICES = ("megatron", "nearest")


@dataclass(frozen=True, slots=True)
class Memory:
    """Weights and staging of the fullest GPU, in 10**9 bytes."""

    source_gb: float
    target_gb: float
    staging_gb: float
    peak_gb: float


@dataclass(frozen=True, slots=True)
class RefitPlan:
    """One scenario of one model on one cluster."""

    model: ModelShape
    scenario: RefitScenario
    cluster: RefitCluster
    cells: Cells
    traffic: Traffic
    bound: Bound
    memory: Memory

    @property
    def verdict(self) -> str:
        """How the claimed time stands to the bound; empty without a claim."""
        claimed = self.scenario.claimed_ms
        return verdict(claimed, self.bound.bound_s) if claimed else ""

    @property
    def experts_per_group(self) -> tuple[int, int]:
        """Routed experts that one expert-parallel group holds, before and after."""
        experts = self.model.experts
        return experts // self.scenario.source.ep, experts // self.scenario.target.ep

    @property
    def element_bytes(self) -> float:
        return DTYPE_BYTES[self.scenario.dtype]


def chooser(choice: str, domain_ranks: int) -> Chooser:
    """Return the policy of that name."""
    if choice not in CHOICES:
        raise SpecError.unknown("choice", choice, CHOICES)
    return megatron if choice == "megatron" else nearest(domain_ranks)


def make_plan(
    model: ModelShape,
    scenario: RefitScenario,
    cluster: RefitCluster,
    *,
    choice: str = "megatron",
) -> RefitPlan:
    """Return the plan of one scenario; pure, well under a second at full size."""
    source, target = grids(scenario, model)
    cells = make_cells(tensor_kinds(model), source, target)
    traffic = make_traffic(cells, source, chooser(choice, cluster.domain_gpus))
    element_bytes = DTYPE_BYTES[scenario.dtype]
    return RefitPlan(
        model=model,
        scenario=scenario,
        cluster=cluster,
        cells=cells,
        traffic=traffic,
        bound=make_bound(cells, cluster, element_bytes),
        memory=_memory(cells, traffic, element_bytes),
    )


def _memory(cells: Cells, traffic: Traffic, element_bytes: float) -> Memory:
    gb = element_bytes / GB
    source = element_counts(cells.held, cells) * gb
    target = element_counts(cells.needed, cells) * gb
    staging = traffic.staged * gb
    return Memory(
        source_gb=float(source.max()),
        target_gb=float(target.max()),
        staging_gb=float(staging.max()),
        peak_gb=float((source + target + staging).max()),
    )


def memory_refusal(plan: RefitPlan) -> str:
    """Return why it cannot run on the cluster's GPUs, with the sum; or nothing."""
    memory, have = plan.memory, plan.cluster.hbm_gbyte
    if memory.peak_gb <= have:
        return ""
    both = f"{memory.source_gb:.1f} GB of source + " if plan.scenario.collocated else ""
    return (
        f"scenario {plan.scenario.id} does not fit: {both}{memory.target_gb:.1f} GB of "
        f"target + {memory.staging_gb:.1f} GB of staging = {memory.peak_gb:.1f} GB > "
        f"{have:g} GB of {plan.cluster.hardware}."
    )


def _ranking(pairs: Iterable[tuple[float, str]]) -> str:
    out = ""
    last: float | None = None
    for value, number in sorted(pairs):
        out += (" = " if value == last else " < " if out else "") + number
        last = value
    return out


def bound_order(plans: Sequence[RefitPlan]) -> str:
    """Return the scenarios by bound, for example ``6 < 7 < 1 = 2``."""
    return _ranking(
        (round(plan.bound.bound_s, 9), plan.scenario.label) for plan in plans
    )


def claimed_order(plans: Sequence[RefitPlan]) -> str:
    """Return the scenarios by the middle of the claimed time."""
    return _ranking(
        (sum(plan.scenario.claimed_ms) / 2, plan.scenario.label)
        for plan in plans
        if plan.scenario.claimed_ms
    )
