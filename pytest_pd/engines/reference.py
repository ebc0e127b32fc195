"""The embedded reference engine: real attention on CPU, vLLM's flags and words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_pd.engines import vllm_shape
from pytest_pd.errors import SpecError
from pytest_pd.plan.model import ReadyPlan, Role
from pytest_pd.plan.seam import EvidenceNames, Handover, Launch, Program, Worker
from pytest_pd.spec.pool import PoolSpec
from pytest_pd.spec.topology import KvTransferSpec, TopologySpec

BLOCK_TOKENS = 16
SHARED = ("shared_storage", "ExampleConnector", "SharedStorageConnector")
PULL = ("tcp", "pull", "nixl", "NixlConnector")
KV_ROLES = {Role.PREFILL: "kv_producer", Role.DECODE: "kv_consumer"}
ASKED = {"producer": "kv_producer", "consumer": "kv_consumer", "both": "kv_both"}


IGNORED = ("speculative", "kv_offload", "kv_events", "moe", "config")


class Reference:
    """Turns one placed worker into ``python -m pytest_pd.reference serve``."""

    name = "reference"

    def gpus_per_replica(self, pool: PoolSpec) -> int:
        """Return tp x pp x dp, as vLLM counts; it runs on CPU all the same."""
        return pool.world

    def ports(self, pool: PoolSpec) -> Mapping[str, int]:
        """One API port, and a side channel per data-parallel rank of a process."""
        found = {"http": 1, "side_channel": pool.dp}
        nodes = pool.nodes_per_replica or 1
        if pool.dp > 1:
            found["dp_rpc"] = 1
        elif nodes > 1:
            found["master"] = 1
        return found

    def check(self, topology: TopologySpec) -> tuple[str, ...]:
        """Refuse connectors that the reference engine has not, shapes as vLLM does."""
        for role in ("prefill", "decode", "aggregated"):
            if pool := getattr(topology, role):
                vllm_shape.check(pool, role, nodes=pool.nodes_per_replica)
        transfer = topology.kv_transfer
        if transfer and transfer.connector in SHARED and not transfer.path:
            raise SpecError(
                f"{topology.name}: connector {transfer.connector!r} needs "
                "kv_transfer.path.",
                hint='path: "{run_dir}/kv"',
            )
        if transfer and transfer.connector not in (*SHARED, *PULL):
            raise SpecError.unknown(
                "reference engine: connector", transfer.connector, (*SHARED, *PULL)
            )
        return tuple(_ignored(topology))

    def launch(self, worker: Worker) -> Launch:
        """Return argv, environment and readiness of one server."""
        transfer = worker.topology.kv_transfer
        pulls = _moves(worker) and transfer and transfer.connector in PULL
        side_channel = {
            "VLLM_NIXL_SIDE_CHANNEL_HOST": worker.address,
            "VLLM_NIXL_SIDE_CHANNEL_PORT": str(worker.ports["side_channel"]),
        }
        serving = vllm_shape.serves(worker)
        return Launch(
            argv=tuple(_argv(worker)),
            ready=ReadyPlan(
                "http" if serving else "started",
                f"http://{worker.address}:{worker.ports['http']}/health",
                budget_s=60.0,
                stall_s=30.0,
            ),
            env={
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
                **(side_channel if pulls else {}),
            },
            endpoint=serving,
            ranks=vllm_shape.ranks(worker),
        )

    def handover(self, topology: TopologySpec) -> Handover:
        """Return whole blocks through files, every token by pull."""
        transfer = topology.kv_transfer
        shared = transfer is not None and transfer.connector in SHARED
        kind = "shared_storage" if shared else "pull"
        block = topology.engine.block_tokens or BLOCK_TOKENS
        return Handover(kind if transfer else "none", block, whole_blocks=shared)

    def evidence(self, topology: TopologySpec) -> EvidenceNames:
        """Return vLLM's names: the reference engine speaks them."""
        transfer = topology.kv_transfer
        pull = transfer is not None and transfer.connector in PULL
        by_source = "vllm:prompt_tokens_by_source_total"
        return EvidenceNames(
            prompt_tokens="vllm:prompt_tokens_total",
            computed_tokens=f'{by_source}{{source="local_compute"}}',
            generated_tokens="vllm:generation_tokens_total",
            external_tokens=f'{by_source}{{source="external_kv_transfer"}}',
            external_queries="vllm:external_prefix_cache_queries_total",
            external_hits="vllm:external_prefix_cache_hits_total",
            transferred_bytes="vllm:nixl_bytes_transferred_sum" if pull else "",
            transfer_seconds="vllm:nixl_xfer_time_seconds_sum" if pull else "",
            transfers="vllm:nixl_xfer_time_seconds_count" if pull else "",
            transfer_failures="vllm:nixl_num_failed_transfers_total" if pull else "",
            local_hits="vllm:prefix_cache_hits_total",
            requests="vllm:request_success_total",
            log_hit="" if pull else "External Cache Hit!",
            log_inject="" if pull else r"Inject KV cache of (\d+) tokens",
        )

    def programs(self, topology: TopologySpec) -> Sequence[Program]:
        """Return nothing: the engine is a part of this package."""
        return ()


def _ignored(topology: TopologySpec) -> Iterator[str]:
    """Say which settings mean nothing to this engine."""
    for role in ("prefill", "decode", "aggregated"):
        pool: PoolSpec | None = getattr(topology, role)
        found = [name for name in IGNORED if pool and getattr(pool, name)]
        if found:
            yield f"{role}.{', '.join(found)}: the reference engine has no such thing."


def _argv(worker: Worker) -> Iterator[str]:
    topology = worker.topology
    yield from (worker.site.python, "-m", "pytest_pd.reference", "serve")
    yield topology.model.path
    yield from ("--host", worker.address, "--port", str(worker.ports["http"]))
    yield from ("--served-model-name", topology.model.served_name)
    block = topology.engine.block_tokens or BLOCK_TOKENS
    yield from ("--block-size", str(block))
    yield from vllm_shape.words(worker)
    if topology.kv_transfer and _moves(worker):
        config = _transfer_config(topology.kv_transfer, worker)
        yield from ("--kv-transfer-config", _json(config))
    if worker.pool.prefix_caching is not None:
        prefix = "" if worker.pool.prefix_caching else "no-"
        yield f"--{prefix}enable-prefix-caching"
    if worker.pool.kv_cache_dtype:
        yield from ("--kv-cache-dtype", worker.pool.kv_cache_dtype)
    for fault in (*topology.engine.faults, *worker.pool.faults):
        yield from ("--fault", _json(fault))
    yield from topology.engine.args
    yield from worker.pool.args


def _moves(worker: Worker) -> bool:
    return worker.role in KV_ROLES


def _transfer_config(transfer: KvTransferSpec, worker: Worker) -> dict[str, Any]:
    asked = worker.pool.kv_role
    role = ASKED[asked] if asked else KV_ROLES[worker.role]
    if transfer.connector in PULL:
        return {
            "kv_connector": "NixlConnector",
            "kv_role": role,
            "kv_buffer_device": "cpu",
            **transfer.config,
        }
    return {
        "kv_connector": "ExampleConnector",
        "kv_role": role,
        "kv_connector_extra_config": {"shared_storage_path": transfer.path},
        **transfer.config,
    }


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
