"""Names that a job may give to engine, planner and mutant; needs no torch."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_pd.errors import SpecError

ENGINES = {
    "gloo": "pytest_pd.refit.worker.engine:P2PEngine",
    "torch": "pytest_pd.refit.worker.copy_service:torch_service",
    "nccl": "pytest_pd.refit.worker.copy_service:nccl",
    "nvshmem": "pytest_pd.refit.worker.copy_service:nvshmem",
    "nixl": "pytest_pd.refit.worker.copy_service:nixl",
}
"""Name to ``module:attribute`` of a factory without arguments."""

PLANNERS = {
    "own": "pytest_pd.refit.worker.variants:own_transfers",
    "megatron": "pytest_pd.refit.worker.megatron:transfers",
}

MUTANTS = (
    "clock_skew",
    "drop_message",
    "dtype_change",
    "expert_shift",
    "hang",
    "lost_message",
    "noop",
    "stale_tensor",
    "stride_one",
)
"""Known faults; `pytest_pd.refit.worker.mutant` puts them in."""

OPINIONS = ("round_trip", "dcp")


def check_names(
    *, engine: str, planner: str, mutant: str, opinions: Iterable[str]
) -> None:
    """Refuse a name that no worker knows; an empty mutant is none.

    Raises:
        SpecError: unknown, and no ``module:attribute`` where that is allowed.
    """
    for kind, name, known in (
        ("engine", engine, ENGINES),
        ("planner", planner, PLANNERS),
    ):
        if ":" not in name and name not in known:
            raise SpecError.unknown(kind, name, known)
    if mutant and mutant not in MUTANTS:
        raise SpecError.unknown("mutant", mutant, MUTANTS)
    for opinion in opinions:
        if opinion not in OPINIONS:
            raise SpecError.unknown("second opinion", opinion, OPINIONS)
