"""NVIDIA Dynamo: workers of ``dynamo.mocker`` here, ``dynamo.vllm`` on GPUs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_pd.engines import (
    dynamo_env,
    version,
    vllm_flags,
    vllm_kv,
    vllm_shape,
    vllm_words,
)
from pytest_pd.errors import SpecError
from pytest_pd.plan.model import ReadyPlan, Role
from pytest_pd.plan.seam import EvidenceNames, Handover, Launch, Program, Worker
from pytest_pd.spec.pool import PoolSpec
from pytest_pd.spec.topology import TopologySpec

BACKENDS = ("mocker", "vllm")
MODES = {Role.PREFILL: "prefill", Role.DECODE: "decode", Role.AGGREGATED: "agg"}
MOCKER_BLOCK_TOKENS = 16
VLLM_VERSION = "0.31.0"
COUNT = re.compile(r"[1-9][0-9]{0,5}")
"""vLLM that Dynamo 1.6.1 asks for: connector names and keys follow it."""


class Dynamo:
    """Turns one placed worker into ``python -m dynamo.mocker`` or ``dynamo.vllm``.

    ``engine.config: {backend: mocker | vllm}`` chooses; without it, the mocker
    where the hardware is ``cpu``.
    """

    name = "dynamo"

    def gpus_per_replica(self, pool: PoolSpec) -> int:
        """Return tp x pp x pcp x dp, as vLLM counts."""
        return pool.world

    def ports(self, pool: PoolSpec) -> Mapping[str, int]:
        """The system port (health, metrics), and what vLLM's NIXL takes."""
        return {"http": 1, "side_channel": pool.dp}

    def check(self, topology: TopologySpec) -> tuple[str, ...]:
        """Refuse what the backend cannot do; return notes for the plan."""
        kind = backend(topology)
        for name in ("prefill", "decode", "aggregated"):
            pool = getattr(topology, name)
            if pool is not None:
                _check_pool(kind, pool, name)
        if topology.router is None or topology.router.kind != "dynamo":
            raise SpecError(
                f"{topology.name}: Dynamo's workers answer no HTTP requests: only its "
                "own frontend can stand before them.",
                hint="router: {kind: dynamo}",
            )
        if kind == "mocker":
            return (
                "dynamo.mocker invents its tokens: nothing is said of their truth.",
            )
        if topology.kv_transfer is None:
            return ()
        return vllm_kv.check(topology.kv_transfer, vllm_version(topology))

    def launch(self, worker: Worker) -> Launch:
        """Return argv, environment and readiness of one worker process."""
        words = _mocker if backend(worker.topology) == "mocker" else _vllm
        return Launch(
            argv=tuple(words(worker)),
            ready=_ready(worker),
            env=_env(worker),
            env_unset=(*dynamo_env.ENV_UNSET, "VLLM_PORT", "VLLM_DP_*", "VLLM_NIXL_*"),
            ranks=worker.dp_ranks if worker.pool.dp > 1 else (),
        )

    def handover(self, topology: TopologySpec) -> Handover:
        """Return a hand-over by pull; the mocker moves nothing and says no truth."""
        if backend(topology) == "mocker":
            tokens = topology.engine.block_tokens or MOCKER_BLOCK_TOKENS
            return Handover("none", tokens, true_tokens=False)
        shared = vllm_kv.is_shared_storage(topology.kv_transfer)
        return Handover(
            "shared_storage" if shared else "pull",
            vllm_flags.block_tokens(topology, cpu=False),
            whole_blocks=shared,
        )

    def evidence(self, topology: TopologySpec) -> EvidenceNames:
        """Return counters of requests per worker, and vLLM's where it runs."""
        requests = 'dynamo_component_requests_total{dynamo_endpoint="generate"}'
        if backend(topology) == "mocker":
            # one process with several workers shows the counters of only one of them
            return EvidenceNames(requests="" if _several(topology) else requests)
        return vllm_words.evidence(
            vllm_version(topology),
            nixl=vllm_kv.is_nixl(topology.kv_transfer),
            shared_storage=vllm_kv.is_shared_storage(topology.kv_transfer),
        )

    def programs(self, topology: TopologySpec) -> Sequence[Program]:
        """Return the interpreter that has Dynamo."""
        if topology.engine.image:
            return ()
        name = dynamo_env.python(topology, topology.engine.executable)
        return (Program(name, "pytest-pd engines install dynamo"),)


def backend(topology: TopologySpec) -> str:
    """Return which program the workers are.

    Raises:
        SpecError: ``engine.config.backend`` names none.
    """
    default = "mocker" if topology.hardware_kinds == ("cpu",) else "vllm"
    name = str(topology.engine.config.get("backend", default))
    if name not in BACKENDS:
        raise SpecError.unknown("engine.config.backend", name, BACKENDS)
    return name


def vllm_version(topology: TopologySpec) -> version.Version:
    """Return the release of vLLM inside Dynamo, ``engine.config.vllm_version``."""
    return version.parse(str(topology.engine.config.get("vllm_version", VLLM_VERSION)))


def workers_of(pool: PoolSpec) -> int:
    """Return how many workers one process of the pool registers.

    Raises:
        SpecError: ``config.num_workers`` is not a count.
    """
    given = str(pool.config.get("num_workers", 1))
    if not COUNT.fullmatch(given):
        raise SpecError(
            f"config.num_workers: {given!r} is not a number of workers.",
            hint="give a whole number from 1",
        )
    return int(given)


def _several(topology: TopologySpec) -> bool:
    pools = (topology.prefill, topology.decode, topology.aggregated)
    return any(workers_of(pool) > 1 for pool in pools if pool)


def _check_pool(kind: str, pool: PoolSpec, name: str) -> None:
    unknown = sorted(set(pool.config) - {"num_workers"})
    if unknown:
        raise SpecError.unknown(f"{name}.config", unknown[0], ("num_workers",))
    if kind == "mocker":
        _check_mocker(pool, name)
        return
    if pool.config:
        raise SpecError(
            f"{name}.config.num_workers is the mocker's.", hint=f"{name}.replicas"
        )
    if pool.dp > 1 and pool.dp_mode != "internal":
        raise SpecError(
            f"{name}: Dynamo balances over ranks itself; dp_mode {pool.dp_mode} means "
            "nothing to it.",
            hint="leave dp_mode out",
        )
    vllm_shape.check(pool, name, nodes=pool.nodes_per_replica)


def _check_mocker(pool: PoolSpec, name: str) -> None:
    given: dict[str, Any] = {"tp": pool.tp, "pp": pool.pp, "pcp": pool.pcp}
    for key, value in given.items():
        if value != 1:
            raise SpecError(
                f"{name}.{key} is {value}; the mocker knows data parallelism only.",
                hint=f"leave {key} out",
            )
    if "--speedup-ratio" in pool.args:
        value = pool.args[pool.args.index("--speedup-ratio") + 1 :][:1]
        if value in (("0",), ("0.0",)):
            raise SpecError(
                f"{name}: --speedup-ratio 0 behaves as 1 in Dynamo 1.6.1.",
                hint="a large number, for example 1000000",
            )


def _mocker(worker: Worker) -> Iterator[str]:
    topology, pool = worker.topology, worker.pool
    yield dynamo_env.python(topology, topology.engine.executable)
    yield from ("-m", "dynamo.mocker", "--model-path", topology.model.path)
    yield from ("--model-name", topology.model.served_name)
    yield from ("--disaggregation-mode", MODES[worker.role])
    block = topology.engine.block_tokens or MOCKER_BLOCK_TOKENS
    yield from ("--block-size", str(block))
    if pool.dp > 1:
        yield from ("--data-parallel-size", str(pool.dp))
    if workers_of(pool) > 1:
        yield from ("--num-workers", str(workers_of(pool)))
    if pool.prefix_caching is False:
        yield "--no-enable-prefix-caching"
    yield from topology.engine.args
    yield from pool.args


def _vllm(worker: Worker) -> Iterator[str]:
    topology = worker.topology
    yield dynamo_env.python(topology, topology.engine.executable)
    yield from ("-m", "dynamo.vllm", "--model", topology.model.path)
    yield from ("--served-model-name", topology.model.served_name)
    if worker.role is not Role.AGGREGATED:
        yield from ("--disaggregation-mode", MODES[worker.role])
    yield from vllm_shape.words(worker)
    yield from vllm_flags.words(topology, worker.pool)
    yield from topology.engine.args
    yield from worker.pool.args
    if topology.kv_transfer is not None:
        config = vllm_kv.transfer_config(
            topology.kv_transfer,
            worker.role,
            worker.pool,
            vllm_version(topology),
            cpu=False,
        )
        yield from ("--kv-transfer-config", config) if config else ()


def _env(worker: Worker) -> dict[str, str]:
    env = dynamo_env.common(worker)
    env["DYN_SYSTEM_PORT"] = str(worker.ports["http"])
    # without it /health of a worker says 503 for ever, although it serves
    env["DYN_SYSTEM_STARTING_HEALTH_STATUS"] = "ready"
    if backend(worker.topology) == "vllm":
        env["VLLM_NO_USAGE_STATS"] = "1"
        env["VLLM_HOST_IP"] = worker.address
        env["VLLM_NIXL_SIDE_CHANNEL_HOST"] = worker.address
        env["VLLM_NIXL_SIDE_CHANNEL_PORT"] = str(worker.ports["side_channel"])
    return env


def _ready(worker: Worker) -> ReadyPlan:
    mocker = backend(worker.topology) == "mocker"
    return ReadyPlan(
        kind="http",
        target=f"http://{worker.address}:{worker.ports['http']}/health",
        budget_s=60.0 if mocker else 3600.0,
        stall_s=60.0 if mocker else 900.0,
        stages=() if mocker else vllm_words.STAGES,
    )
