"""Do the workloads of a topology fit what its workers take?

Prefill sees a prompt and one token, decode and aggregated workers the whole
request: a prefill limit below ISL + OSL is right, and common in public recipes. In a
conversation of N turns the last prompt holds the answers of the N - 1 before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_pd.errors import SpecError
from pytest_pd.plan.layout import pools_of
from pytest_pd.plan.model import Role
from pytest_pd.plan.words import flag_count
from pytest_pd.spec.pool import PoolSpec
from pytest_pd.spec.topology import TopologySpec
from pytest_pd.spec.workload import WorkloadSpec

MAX_LENGTH = "--max-model-len"
MAX_REQUESTS = "--max-num-seqs"


def check_lengths(
    topology: TopologySpec, workloads: Sequence[WorkloadSpec]
) -> tuple[str, ...]:
    """Refuse workloads that a worker or the KV buffer cannot take; return notes.

    Traces are not judged: their lengths are in their files.

    Raises:
        SpecError: a request would not fit; shows the numbers.
    """
    made = [workload for workload in workloads if workload.kind != "trace"]
    for workload in made:
        _check_buffer(topology, workload)
        for role, pool in pools_of(topology):
            _check_pool(topology, role, pool, workload)
    return tuple(_slots(topology, made))


def _check_buffer(topology: TopologySpec, workload: WorkloadSpec) -> None:
    transfer = topology.kv_transfer
    buffer = transfer.buffer_tokens if transfer else None
    # 0 is zero-copy: nothing is buffered
    if buffer and buffer < workload.prompt_tokens:
        raise SpecError(
            f"{topology.name}: kv_transfer.buffer_tokens {buffer} < the "
            f"{workload.prompt_tokens} prompt tokens of workload {workload.name!r}.",
            hint="raise it, or 0 for zero-copy",
        )


def _check_pool(
    topology: TopologySpec, role: Role, pool: PoolSpec, workload: WorkloadSpec
) -> None:
    limit = flag_count((*topology.engine.args, *pool.args), MAX_LENGTH)
    isl, osl = workload.prompt_tokens * workload.turns, workload.output_tokens
    answers = osl * workload.turns
    if role is Role.PREFILL:
        answers += 1 - osl
    needed = isl + answers
    if limit and limit < needed:
        raise SpecError(
            f"{topology.name}: {role} takes {MAX_LENGTH} {limit}, and workload "
            f"{workload.name!r} needs {isl} + {answers} = {needed} tokens.",
            hint=f"raise {MAX_LENGTH} of {role}, or shorten the workload",
        )


def _slots(topology: TopologySpec, workloads: Sequence[WorkloadSpec]) -> Iterator[str]:
    top = max((p.value for w in workloads for p in w.concurrency), default=0)
    for role, pool in pools_of(topology):
        each = flag_count((*topology.engine.args, *pool.args), MAX_REQUESTS)
        slots = each * pool.dp * pool.replicas if each else None
        if role is not Role.PREFILL and slots and slots < top:
            yield (
                f"{role} holds {slots} requests at once ({MAX_REQUESTS} {each} x dp "
                f"{pool.dp} x {pool.replicas} replicas); the top concurrency is {top}: "
                "the rest waits."
            )
