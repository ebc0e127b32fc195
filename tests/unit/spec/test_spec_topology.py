"""What a topology file can say, and what follows from what it leaves out."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_pd.spec.file import read_topology
from pytest_pd.spec.pool import PoolSpec, SpeculativeSpec

Write = Callable[..., Path]

EVERYTHING = """\
name: everything
description: every block that public recipes carry
hardware: [gb200, gb300]
model: {ref: dsr1-fp8, served_name: r1, precision: fp8, revision: abc, tokenizer: t}
engine:
  kind: vllm
  version: 0.32.0
  image: vllm-arm
  block_tokens: 64
  args: [--gpu-memory-utilization, 0.9, --max-num-seqs, 256]
  env: {NCCL_DEBUG: WARN, UCX_TLS: "rc,cuda"}
  env_from_host: [HF_TOKEN]
  config: {kv_cache_config: {free_gpu_memory_fraction: 0.8}}
kv_transfer:
  connector: MultiConnector
  backend: UCX
  runtime: cpp
  buffer_tokens: 8448
  timeout_ms: 600000
  connectors:
    - {connector: NixlConnector, backend: UCX}
    - {connector: OffloadingConnector, config: {num_cpu_blocks: 1000}}
prefill:
  replicas: 4
  tp: 4
  pp: 1
  dp: 4
  ep: 4
  attention_dp: true
  gpus_per_replica: 4
  kv_role: producer
  kv_cache_dtype: fp8
  prefix_caching: false
  kv_offload: {tier: host, size_gib: 100, backend: native}
  kv_events: {publisher: zmq, topic: kv}
  speculative: {method: mtp, num_tokens: 1}
  moe: {backend: deepgemm, all2all: deepep, experts: 256, eplb_slots: 288}
  resources: {cpu: 130, memory_gib: 850, shm_gib: 80}
  rdma_devices: 4
  config: {max_num_tokens: 8192}
  image: prefill-image
  mounts: ["/lustre:/lustre:ro"]
  visible_gpus: node
decode:
  replicas: 1
  tp: 8
  dcp: 8
  pcp: 1
  nodes_per_replica: 2
  dp_mode: internal
  speculative: {method: eagle3, num_tokens: 3, model: draft, forced_acceptance: 2.49}
router:
  kind: dynamo
  replicas: 9
  balancer: nginx
  policy: kv
  args: [--busy-threshold, 0.9]
  env: {DYN_LOG: info}
  config: {plugins: [{name: prefix, weight: 3}]}
  session_affinity: {header: x-session-id, lifetime_s: 300}
  node: own
control_plane: {services: [etcd, nats], node: own, nats_max_payload_mb: 32}
placement: {pack: true, roles_share_nodes: off, same_nvlink_domain: true}
budgets: {queue_s: 3600, setup_s: 60, ready_s: 1800, tests_s: 600, allocation_s: 7200}
workloads: [isl8192_osl1024, {name: w, input_tokens: 1024, concurrency: [4, 8]}]
evals:
  - gsm8k
  - {task: gpqa, shots: 0, repeats: 4, sampling: {temperature: 0.6}, expected: 0.71}
slo: {ttft_ms: 2000, tpot_ms: 30}
identity: {revision: abc, versions: {vllm: 0.32.0}}
software: {dynamo: {commit: 1234abc}}
setup: {script: build.sh, roles: [prefill]}
profiling: {tool: nsys, role: decode, start_step: 50, stop_step: 70}
level: full
determinism: floor
"""


def test_every_block_is_read(write: Write) -> None:
    spec = read_topology(write(base=EVERYTHING, name="everything.yaml"))

    assert spec.hardware_kinds == ("gb200", "gb300")
    assert spec.engine.args[1] == "0.9"
    assert spec.placement.roles_share_nodes == "off"
    assert spec.kv_transfer is not None
    assert [m.connector for m in spec.kv_transfer.connectors] == [
        "NixlConnector",
        "OffloadingConnector",
    ]
    assert spec.prefill is not None
    assert spec.prefill.moe is not None
    assert spec.prefill.moe.eplb_slots == 288
    assert spec.performance_only


@pytest.mark.parametrize(
    ("hardware", "level", "determinism"),
    [
        ("cpu", "quick", "exact"),
        ("gb200", "standard", "floor"),
        ("[h100, h200]", "standard", "floor"),
    ],
)
def test_defaults_follow_the_hardware(
    write: Write, hardware: str, level: str, determinism: str
) -> None:
    path = write()
    path.write_text(path.read_text().replace("hardware: cpu", f"hardware: {hardware}"))

    spec = read_topology(path)

    assert (spec.level, spec.determinism) == (level, determinism)


def test_forced_acceptance_alone_makes_it_performance_only(write: Write) -> None:
    plain = read_topology(write("aggregated: {speculative: {method: mtp}}\n"))

    assert not plain.performance_only


def test_a_specification_is_frozen(write: Write) -> None:
    spec = read_topology(write())

    with pytest.raises(ValueError, match="frozen"):
        spec.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("pool", "world"),
    [
        (PoolSpec(), 1),
        (PoolSpec(tp=8), 8),
        (PoolSpec(tp=2, pp=3, dp=4), 24),
        (PoolSpec(tp=8, dp=8, attention_dp=True), 8),
        (PoolSpec(tp=2, pcp=4), 8),
        (PoolSpec(tp=8, dcp=8), 8),
    ],
)
def test_ranks_of_a_replica(pool: PoolSpec, world: int) -> None:
    assert pool.world == world


def test_a_worker_is_the_pool_with_its_own_laid_over() -> None:
    pool = PoolSpec.model_validate(
        {
            "tp": 2,
            "args": ["--a"],
            "env": {"X": "pool", "Y": "pool"},
            "workers": [{}, {"tp": 4, "args": ["--b"], "env": {"X": "own"}}],
        }
    )

    own = pool.worker(1)

    assert pool.replicas == 2
    assert pool.worker(0).tp == 2
    assert (own.tp, own.args, own.env) == (4, ("--a", "--b"), {"X": "own", "Y": "pool"})


def test_pins_come_from_node_or_nodes() -> None:
    pool = PoolSpec.model_validate(
        {"workers": [{"node": 3}, {"nodes": [1, "rack7"]}, {}]}
    )

    assert [worker.pins for worker in pool.workers] == [(3,), (1, "rack7"), ()]


def test_a_draft_needs_no_model() -> None:
    assert SpeculativeSpec(method="mtp").model is None
