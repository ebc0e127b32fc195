"""What nodes said about themselves, judged against what the plan needs. Pure.

The facts are those of `node_facts`, one record per node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pytest_pd.plan.model import DeploymentPlan
from pytest_pd.provision.base import Finding
from pytest_pd.spec.cluster import ClusterSpec

GIB = 2**30
FILES = 4096
SHM_BYTES_PER_GPU = 1 * GIB
FOREIGN_MIB = 500
GPU_NAMES = {
    "a100": "A100",
    "h100": "H100",
    "h200": "H200",
    "b200": "B200",
    "gb200": "GB200",
    "gb300": "GB300",
}
"""Hardware mark to a word of the name that nvidia-smi shows."""

Facts = Mapping[str, Mapping[str, Any]]


def node_findings(
    cluster: ClusterSpec,
    plan: DeploymentPlan,
    facts: Facts,
    busy: frozenset[tuple[str, int]],
) -> Iterator[Finding]:
    """Yield what was found on each node, then what must be equal on all of them."""
    for name, said in facts.items():
        yield machine(name, said)
        yield open_files(name, said)
        yield disk(name, said, plan)
        if plan.gpus and not plan.rehearsal:
            yield from gpus(name, said, cluster)
            yield memlock(name, said)
            yield shared_memory(name, said, cluster)
        yield from infiniband(name, said)
    for node, port in sorted(busy):
        yield Finding(
            f"{node}: port {port}",
            False,
            "somebody listens on it",
            "end that process, or give the topology another port",
        )
    if plan.gpus and not plan.rehearsal:
        yield same_driver(facts)


def bad_nodes(cluster: ClusterSpec, facts: Facts) -> dict[str, str]:
    """Return what is wrong with nodes that can serve nobody, by node.

    Nodes on which no GPU can be asked about at all (another maker's, no tool in
    PATH) are unknown, not bad, unless their peers do answer.
    """
    if not any(said["gpus"] for said in facts.values()):
        return {}
    found: dict[str, str] = {}
    for name, said in facts.items():
        wrong = [f for f in gpus(name, said, cluster) if f.ok is False]
        if wrong:
            text = "; ".join(f"{f.what.partition(': ')[2]}: {f.said}" for f in wrong)
            found[name] = text
    return found


def machine(name: str, said: Mapping[str, Any]) -> Finding:
    """Tell that a node answers, and what it is."""
    return Finding(name, True, f"{said['machine']}, Python {said['python']}")


def open_files(name: str, said: Mapping[str, Any]) -> Finding:
    """Judge the limit of open files, one socket per request and more."""
    limit = said["open_files"]
    enough = limit is None or limit >= FILES
    text = f"{'no limit' if limit is None else limit}, {FILES} needed"
    return Finding(
        f"{name}: open files", enough, text, "" if enough else f"ulimit -n {FILES}"
    )


def disk(name: str, said: Mapping[str, Any], plan: DeploymentPlan) -> Finding:
    """Judge the room where the run directory lies."""
    free, need = said["disk_bytes"], plan.disk_bytes
    return Finding(
        f"{name}: disk",
        free >= need,
        f"{free / GIB:.1f} GiB free, {need / GIB:.2f} GiB needed",
        "" if free >= need else "make room, or choose another run directory",
    )


def gpus(name: str, said: Mapping[str, Any], cluster: ClusterSpec) -> Iterator[Finding]:
    """Judge number, kind, health and foreign use of the GPUs."""
    found = said["gpus"]
    wanted = cluster.gpus_per_node
    yield Finding(
        f"{name}: GPUs",
        len(found) >= wanted,
        f"{len(found)} of {wanted}",
        "" if len(found) >= wanted else "exclude the node: slurm.exclude",
    )
    word = GPU_NAMES.get(cluster.hardware)
    other = sorted({g["name"] for g in found if word and word not in g["name"]})
    if other:
        yield Finding(
            f"{name}: hardware",
            False,
            f"{', '.join(other)}; the cluster file says {cluster.hardware}",
            "correct hardware in the cluster file",
        )
    used = [g for g in found if _number(g["memory.used"]) > FOREIGN_MIB]
    if used or said["gpu_processes"]:
        yield Finding(
            f"{name}: foreign GPU use",
            False,
            "; ".join(said["gpu_processes"]) or f"memory in use on {len(used)} GPUs",
            "end those processes, or exclude the node",
        )
    broken = [
        g["index"]
        for g in found
        if _number(g["ecc.errors.uncorrected.volatile.total"]) > 0
    ]
    if broken:
        yield Finding(
            f"{name}: ECC",
            False,
            f"uncorrected errors on GPU {', '.join(broken)}",
            "exclude the node and tell its administrators",
        )


def _number(text: str) -> float:
    """Return a number of nvidia-smi; 0 for ``[N/A]``."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def memlock(name: str, said: Mapping[str, Any]) -> Finding:
    """Judge locked memory, which RDMA registration needs without a limit."""
    limit = said["memlock_bytes"]
    return Finding(
        f"{name}: locked memory",
        limit is None,
        "no limit" if limit is None else f"{limit / GIB:.2f} GiB",
        "" if limit is None else "ulimit -l unlimited (PropagateResourceLimits)",
    )


def shared_memory(name: str, said: Mapping[str, Any], cluster: ClusterSpec) -> Finding:
    """Judge /dev/shm, through which the ranks of a node talk."""
    free, need = said["shm_bytes"], SHM_BYTES_PER_GPU * cluster.gpus_per_node
    return Finding(
        f"{name}: /dev/shm",
        free >= need,
        f"{free / GIB:.1f} GiB free, {need / GIB:.0f} GiB needed",
        "" if free >= need else "remove what dead engines left in /dev/shm",
    )


def infiniband(name: str, said: Mapping[str, Any]) -> Iterator[Finding]:
    """Judge the links: a port that is down makes KV take the slow way."""
    down = [port for port, state in said["infiniband"].items() if "ACTIVE" not in state]
    if down:
        yield Finding(
            f"{name}: InfiniBand",
            None,
            f"not active: {', '.join(sorted(down))}",
            "name the active ones in fabric.rdma_devices, or exclude the node",
        )


def same_driver(facts: Facts) -> Finding:
    """Judge that all nodes have one driver."""
    versions = {g["driver_version"] for said in facts.values() for g in said["gpus"]}
    return Finding(
        "driver",
        len(versions) == 1,
        f"{', '.join(sorted(versions)) or 'none'} on {len(facts)} nodes",
        "" if len(versions) == 1 else "exclude the nodes that differ",
    )
