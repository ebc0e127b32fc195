"""Stand-ins for rehearsals: a real engine's plan, run by the reference engine.

Placement, ports, endpoints, ranks and every refusal are the real engine's; its
command line is made, and its flags are looked up in the list of its release; then
the process that starts is the embedded server, at the same address and port.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pytest_pd.engines.dynamo import Dynamo
from pytest_pd.engines.flag_list import check_flags
from pytest_pd.engines.reference import Reference
from pytest_pd.engines.vllm import Vllm
from pytest_pd.plan.seam import (
    Engine,
    EvidenceNames,
    Handover,
    Launch,
    Program,
    Worker,
)
from pytest_pd.spec.pool import PoolSpec
from pytest_pd.spec.topology import TopologySpec


class Rehearsed:
    """The reference engine in the place of another.

    Args:
        real: Engine that the topology asks for.
    """

    name = "reference"

    def __init__(self, real: Engine) -> None:
        self.real = real
        self.stand_in = Reference()

    def gpus_per_replica(self, pool: PoolSpec) -> int:
        """Return what the real engine would use."""
        return self.real.gpus_per_replica(pool)

    def ports(self, pool: PoolSpec) -> Mapping[str, int]:
        """Return the real engine's ports, and those that the stand-in needs."""
        return {**self.stand_in.ports(pool), **self.real.ports(pool)}

    def check(self, topology: TopologySpec) -> tuple[str, ...]:
        """Refuse what the real engine would refuse; say what is played."""
        return (
            *self.real.check(topology),
            f"REHEARSAL: every {self.real.name} process is the reference engine "
            "with the project's own small model; nothing here says how fast it is.",
        )

    def launch(self, worker: Worker) -> Launch:
        """Return the stand-in's launch, in the shape of the real one.

        Raises:
            SpecError: the real command line has a flag that its release has not.
        """
        real = self.real.launch(worker)
        check_flags(self.real.name, worker.topology.engine.version, real.argv)
        return replace(
            self.play(worker, real),
            endpoint=real.endpoint,
            ranks=real.ranks,
            notes=real.notes,
            after=real.after,
        )

    def play(self, worker: Worker, real: Launch) -> Launch:
        """Return how the stand-in starts; flags of the real engine mean nothing."""
        return self.stand_in.launch(_without_args(worker))

    def handover(self, topology: TopologySpec) -> Handover:
        """Return what the stand-in promises, in blocks of the real engine's size."""
        block = self.real.handover(topology).block_tokens
        played = self.stand_in.handover(topology)
        return replace(played, block_tokens=block or played.block_tokens)

    def evidence(self, topology: TopologySpec) -> EvidenceNames:
        """Return the stand-in's names."""
        return self.stand_in.evidence(topology)

    def programs(self, topology: TopologySpec) -> Sequence[Program]:
        """Return nothing: the stand-in is a part of this package."""
        return self.stand_in.programs(topology)


class RehearsedVllm(Rehearsed):
    """vLLM's plan, played by the reference engine under vLLM's own command line."""

    def __init__(self) -> None:
        super().__init__(Vllm())

    def play(self, worker: Worker, real: Launch) -> Launch:
        """Return the real words behind another program: it reads vLLM's flags."""
        words = _without_length(real.argv[2:])
        if "--block-size" not in words:
            block = self.handover(worker.topology).block_tokens
            words += ["--block-size", str(block)]
        for fault in (*worker.topology.engine.faults, *worker.pool.faults):
            words += ["--fault", json.dumps(fault, separators=(",", ":"))]
        return replace(
            real,
            argv=(worker.site.python, "-m", "pytest_pd.reference", "serve", *words),
            env={**real.env, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            ready=replace(real.ready, budget_s=60.0, stall_s=30.0, stages=()),
        )


class RehearsedDynamo(Rehearsed):
    """The plan of Dynamo's workers, played by the reference engine.

    Its frontend, NATS and etcd are not played: the built-in proxy stands in front.
    """

    def __init__(self) -> None:
        super().__init__(Dynamo())

    def check(self, topology: TopologySpec) -> tuple[str, ...]:
        """Judge the topology as if Dynamo's frontend were still before it."""
        router = topology.router and topology.router.model_copy(
            update={"kind": "dynamo", "policy": None}
        )
        return super().check(topology.model_copy(update={"router": router}))


def _without_length(words: Sequence[str]) -> list[str]:
    """Return the words without ``--max-model-len``: the small model has its own."""
    kept = list(words)
    if "--max-model-len" in kept:
        at = kept.index("--max-model-len")
        del kept[at : at + 2]
    return kept


def _without_args(worker: Worker) -> Worker:
    """Return the worker without flags that mean nothing to the stand-in."""
    engine = worker.topology.engine.model_copy(update={"args": ()})
    return replace(
        worker,
        pool=worker.pool.model_copy(update={"args": ()}),
        topology=worker.topology.model_copy(update={"engine": engine}),
    )
