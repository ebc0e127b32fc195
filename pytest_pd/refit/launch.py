"""Command lines that start a refit elsewhere: Slurm, SSH, Megatron's own benchmark.

Pure: argv and scripts out of a scenario; nothing is started here.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from pytest_pd.errors import SpecError
from pytest_pd.refit.job import Job
from pytest_pd.spec.refit import MlaSpec, ModelShape, RefitScenario

BENCHMARK = "examples/rl/benchmark_refit.py"
"""In a Megatron-LM checkout."""

DEFAULT_PORT = 29500


def size_flags(scenario: RefitScenario, ranks: int) -> tuple[str, ...]:
    """Return Slurm's flags for `ranks` processes, one GPU each."""
    per_node = scenario.gpus_per_node
    return (
        f"--nodes={scenario.nodes(ranks)}",
        f"--ntasks-per-node={per_node}",
        f"--gpus-per-node={per_node}",
    )


def salloc_argv(
    scenario: RefitScenario, *, ranks: int | None = None, time: str = "1:00:00"
) -> tuple[str, ...]:
    """Return the interactive allocation for the ranks in use, or for `ranks`."""
    flags = size_flags(scenario, ranks or scenario.used_ranks)
    return ("salloc", *flags, f"--time={time}")


def sbatch_argv(
    scenario: RefitScenario,
    script: str,
    *,
    ranks: int | None = None,
    time: str = "1:00:00",
    extra: Sequence[str] = (),
) -> tuple[str, ...]:
    """Return the batch submission; for Megatron's launch unless `ranks` is given."""
    flags = size_flags(scenario, ranks or scenario.world_ranks)
    return ("sbatch", *flags, "--exclusive", f"--time={time}", *extra, script)


def layout_flags(scenario: RefitScenario) -> tuple[str, ...]:
    """Return Megatron's flags for both layouts.

    Both expert tensor sizes are written out: the one of inference defaults to
    that of training, which with another TP is another layout or no layout.
    """
    s, t = scenario.source, scenario.target
    pairs = {
        "--tensor-model-parallel-size": s.tp,
        "--pipeline-model-parallel-size": s.pp,
        "--expert-model-parallel-size": s.ep,
        "--expert-tensor-parallel-size": s.expert_tp,
        "--rl-inference-tensor-model-parallel-size": t.tp,
        "--rl-inference-pipeline-model-parallel-size": t.pp,
        "--rl-inference-expert-model-parallel-size": t.ep,
        "--rl-inference-expert-tensor-model-parallel-size": t.expert_tp,
    }
    return tuple(word for key, value in pairs.items() for word in (key, str(value)))


def model_flags(model: ModelShape) -> tuple[str, ...]:
    """Return Megatron's flags for a model's shape."""
    out = [
        *("--num-layers", str(model.layers), "--hidden-size", str(model.hidden)),
        *("--num-attention-heads", str(model.heads)),
        *("--ffn-hidden-size", str(model.dense_inter or model.moe_inter)),
        *("--vocab-size", str(model.vocab), "--seq-length", "4096"),
        *("--max-position-embeddings", "4096", "--micro-batch-size", "1"),
        *("--normalization", "RMSNorm", "--position-embedding-type", "rope"),
        *("--swiglu", "--disable-bias-linear", "--bf16"),
    ]
    if not model.tied_embeddings:
        out.append("--untie-embeddings-and-output-weights")
    a = model.attention
    if isinstance(a, MlaSpec):
        out += ["--multi-latent-attention", "--q-lora-rank", str(a.q_lora_rank)]
        out += ["--kv-lora-rank", str(a.kv_lora_rank)]
        out += ["--qk-head-dim", str(a.qk_nope_dim)]
        out += ["--qk-pos-emb-head-dim", str(a.qk_rope_dim)]
        out += ["--v-head-dim", str(a.v_dim)]
    else:
        out += ["--group-query-attention", "--num-query-groups", str(a.kv_heads)]
        out += ["--kv-channels", str(a.head_dim)]
        out += ["--qk-layernorm"] if a.qk_norm else []
    return (*out, *_moe_flags(model))


def _moe_flags(model: ModelShape) -> tuple[str, ...]:
    if not model.experts:
        return ()
    moe_layers = model.layers - model.dense_layers
    out = [
        *("--num-experts", str(model.experts)),
        *("--moe-ffn-hidden-size", str(model.moe_inter)),
        *("--moe-router-topk", str(model.router_topk)),
        *("--moe-layer-freq", f"[0]*{model.dense_layers}+[1]*{moe_layers}"),
        *("--moe-token-dispatcher-type", "alltoall", "--moe-grouped-gemm"),
    ]
    if model.shared_experts:
        shared = model.shared_experts * model.moe_inter
        out += ["--moe-shared-expert-intermediate-size", str(shared)]
    if model.router_bias:
        out += ["--moe-router-score-function", "sigmoid"]
        out += ["--moe-router-enable-expert-bias"]
    return tuple(out)


def benchmark_argv(
    model: ModelShape, scenario: RefitScenario, *, python: str = "python"
) -> tuple[str, ...]:
    """Return Megatron's own benchmark of a scenario, one process."""
    return (
        *(python, BENCHMARK, "--refit-mode", scenario.mode),
        *("--refit-method", scenario.method),
        *layout_flags(scenario),
        *("--num-benchmark-warmup", str(scenario.warmup)),
        *("--num-benchmark-iterations", str(scenario.iterations)),
        *model_flags(model),
    )


def worker_argv(job_path: Path | str, *, python: str) -> tuple[str, ...]:
    """Return one rank of our own worker; the environment says which rank."""
    return (python, "-m", "pytest_pd.refit.worker", str(job_path))


def nursery_argv(
    job_path: Path | str, per_node: int, *, python: str
) -> tuple[str, ...]:
    """Return all ranks of one node, forked from one process."""
    module = "pytest_pd.refit.worker.nursery"
    return (python, "-m", module, "--per-node", str(per_node), str(job_path))


def task_script(argv: Sequence[str], *, import_path: str = "") -> str:
    """Return what each Slurm task runs before `argv` takes its place.

    NVSHMEM refuses other than two CTAs; the first node is the meeting point.
    """
    parts = [
        "export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS",
        'export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" '
        "| head -n 1)",
        f"export MASTER_PORT=$(({DEFAULT_PORT} + SLURM_JOB_ID % 1000))",
        "export NVSHMEM_MAX_CTAS=2",
    ]
    if import_path:
        parts.append(f"export PYTHONPATH={shlex.quote(import_path)}")
    return "; ".join([*parts, f"exec {shlex.join(argv)}"])


def sbatch_script(argv: Sequence[str], *, reports: Path | None = None) -> str:
    """Return the batch script that starts `argv` as every task of the job.

    Args:
        reports: Folder to clear of reports first: a script may be submitted again.
    """
    task = shlex.quote(task_script(argv))
    lines = ["#!/bin/bash", "set -eu", f"srun --mpi=none bash -c {task}"]
    if reports:
        lines.insert(2, f"rm -f {shlex.quote(str(reports))}/rank-*.json")
    return "\n".join(lines) + "\n"


def ssh_argvs(
    job: Job, job_path: str, hosts: Sequence[str], per_node: int, *, python: str
) -> list[tuple[str, ...]]:
    """Return one ssh command per rank; the first host is the meeting point.

    Raises:
        SpecError: too few hosts, with the arithmetic.
    """
    need = -(-job.world // per_node)
    if len(hosts) < need:
        raise SpecError(
            f"{job.name}: {job.world} ranks / {per_node} per host = {need} hosts; "
            f"{len(hosts)} are given.",
            hint="add hosts",
        )
    out: list[tuple[str, ...]] = []
    for rank in range(job.world):
        words = [
            *("env", f"RANK={rank}", f"LOCAL_RANK={rank % per_node}"),
            *(f"WORLD_SIZE={job.world}", f"MASTER_ADDR={hosts[0]}"),
            *(f"MASTER_PORT={DEFAULT_PORT}", "NVSHMEM_MAX_CTAS=2"),
            *worker_argv(job_path, python=python),
        ]
        host = hosts[rank // per_node]
        out.append(("ssh", "-o", "BatchMode=yes", host, "--", shlex.join(words)))
    return out
