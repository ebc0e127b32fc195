"""Which shapes vLLM can take on how many nodes, refused with the arithmetic.

The rules were read from ``vllm/engine/arg_utils.py`` and ``config/parallel.py``
of 0.32.0 and met on CPU: hybrid balancing needs two or more ranks on each node,
and a node whose ranks belong to a TP group of another node serves no API.
"""

from __future__ import annotations

from pytest_pd.errors import SpecError
from pytest_pd.plan.seam import Worker
from pytest_pd.spec.pool import PoolSpec


def check(pool: PoolSpec, where: str, *, nodes: int | None = None) -> None:
    """Refuse what vLLM would die of.

    Args:
        where: Name of the pool, for the message.
        nodes: Nodes of one replica, once they are known.

    Raises:
        SpecError: with the numbers and the ways out.
    """
    if pool.attention_dp:
        raise SpecError(
            f"{where}: attention_dp is not vLLM's: its data-parallel ranks have GPUs "
            "of their own.",
            hint=f"tp: 1 with dp: {pool.tp} uses the same GPUs",
        )
    if pool.dp_mode != "internal" and pool.dp == 1:
        raise SpecError(_no_dp(pool, where, nodes), hint=_two_ways(pool))
    if nodes is not None:
        _check_nodes(pool, where, nodes)


def _check_nodes(pool: PoolSpec, where: str, nodes: int) -> None:
    if pool.dp > 1 and pool.dp % nodes:
        raise SpecError(
            f"{where}: dp={pool.dp} ranks do not spread evenly over {nodes} nodes.",
            hint="choose a dp that is a multiple of the nodes of one replica",
        )
    local = pool.dp // nodes
    if pool.dp_mode == "hybrid" and not 2 <= local < pool.dp:
        raise SpecError(
            f"{where}: hybrid balancing with dp={pool.dp} over {nodes} node(s) puts "
            f"{local} rank(s) on each node; vLLM needs at least 2 there, and fewer "
            "than dp.",
            hint="dp_mode external gives one URL per rank, internal one per replica",
        )


def _no_dp(pool: PoolSpec, where: str, nodes: int | None) -> str:
    group = pool.tp * pool.pp
    over = f" over {nodes} node(s)" if nodes else ""
    return (
        f"{where}: dp_mode {pool.dp_mode} with dp=1 cannot run: tp={pool.tp} x "
        f"pp={pool.pp} = {group} ranks{over} are one engine, whose other nodes must be "
        "headless, and vLLM has that balancing only for dp of 2 or more."
    )


def _two_ways(pool: PoolSpec) -> str:
    group = pool.tp * pool.pp
    return (
        f"either tp={pool.tp} without dp_mode (one URL per replica), or dp={group} "
        f"with tp=1 and dp_mode {pool.dp_mode}"
    )


def words(worker: Worker) -> tuple[str, ...]:
    """Return the parallelism flags of one process."""
    pool = worker.pool
    flags: list[str] = []
    for flag, value in (
        ("--tensor-parallel-size", pool.tp),
        ("--pipeline-parallel-size", pool.pp),
        ("--prefill-context-parallel-size", pool.pcp),
        ("--decode-context-parallel-size", pool.dcp),
        ("--data-parallel-size", pool.dp),
    ):
        if value > 1:
            flags += [flag, str(value)]
    if pool.dp > 1:
        flags += _dp_words(worker)
    elif worker.count > 1:
        flags += _multi_node_words(worker)
    if pool.ep is not None and pool.ep > 1:
        flags.append("--enable-expert-parallel")
    return tuple(flags)


def _dp_words(worker: Worker) -> list[str]:
    mode = worker.pool.dp_mode
    if worker.count == 1:
        return []
    local = worker.pool.dp // worker.count
    if mode == "external":
        flags = ["--data-parallel-rank", str(worker.index)]
    else:
        flags = ["--data-parallel-size-local", str(local)]
    if mode == "hybrid":
        flags.append("--data-parallel-hybrid-lb")
    flags += ["--data-parallel-address", worker.head]
    flags += ["--data-parallel-rpc-port", str(worker.head_ports["dp_rpc"])]
    if worker.index and mode != "external":
        flags += ["--data-parallel-start-rank", str(worker.index * local)]
    if worker.index and mode == "internal":
        flags.append("--headless")
    return flags


def _multi_node_words(worker: Worker) -> list[str]:
    flags = ["--nnodes", str(worker.count), "--node-rank", str(worker.index)]
    flags += ["--master-addr", worker.head]
    flags += ["--master-port", str(worker.head_ports["master"])]
    return flags + (["--headless"] if worker.index else [])


def ranks(worker: Worker) -> tuple[int, ...]:
    """Return the global data-parallel ranks that this process's API serves."""
    pool = worker.pool
    if pool.dp == 1 or not serves(worker):
        return ()
    if pool.dp_mode == "internal":
        return tuple(range(pool.dp))
    local = pool.dp // worker.count
    return tuple(range(worker.index * local, (worker.index + 1) * local))


def serves(worker: Worker) -> bool:
    """Tell whether this process answers HTTP, or only follows its head."""
    if worker.index == 0:
        return True
    return worker.pool.dp > 1 and worker.pool.dp_mode != "internal"
