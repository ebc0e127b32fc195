"""Which ranks this process serves: vLLM's rules for parallel flags. Pure.

Source:
    vllm/engine/arg_utils.py, entrypoints/cli/serve.py, config/parallel.py of 0.32.0.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from pytest_pd.errors import SpecError


@dataclass(frozen=True, slots=True)
class Parallel:
    """What one process of an instance is.

    Attributes:
        ranks: Global data-parallel ranks that it serves; empty when headless.
        dp_size: Ranks of the whole instance.
        headless: It has no HTTP side: it only lends its devices.
        follower: Its devices belong to a replica that another node leads.
    """

    ranks: tuple[int, ...]
    dp_size: int = 1
    headless: bool = False
    follower: bool = False


def read_parallel(args: argparse.Namespace) -> Parallel:
    """Apply vLLM's rules to parsed flags.

    An instance whose other nodes are headless (internal load balancing) serves all
    its ranks from the process that has the HTTP side.

    Raises:
        SpecError: vLLM would refuse the combination, in its words.
    """
    dp_size = args.data_parallel_size or 1
    nodes = args.nnodes or 1
    external = (
        bool(args.data_parallel_external_lb) or args.data_parallel_rank is not None
    )
    hybrid = bool(args.data_parallel_hybrid_lb)
    _check_modes(args, external=external, hybrid=hybrid)
    local = _local_size(args, dp_size, nodes, hybrid=hybrid, external=external)
    if args.data_parallel_start_rank is not None and not args.headless:
        hybrid = True
    if hybrid and local == 1 and not external:
        # vLLM switches to external load balancing by itself, and then refuses that.
        external, hybrid = True, False
    if external and dp_size <= 1:
        raise _refused(
            "data_parallel_external_lb can only be set when data_parallel_size > 1",
            "take data parallelism over the nodes, or --headless on all but the first",
        )
    spread = _nodes_per_replica(dp_size, local, nodes, external=external)
    follower = nodes > 1 and (args.node_rank or 0) % spread > 0
    if follower and not args.headless:
        raise _refused(
            f"node rank {args.node_rank} holds a part of a replica that spans "
            f"{spread} nodes and cannot have an API server",
            "give --headless to this node",
        )
    first = args.data_parallel_rank or args.data_parallel_start_rank or 0
    count = local if hybrid or external or args.headless else dp_size
    if first + count > dp_size:
        raise _refused(
            f"ranks {first} to {first + count - 1} exceed data_parallel_size {dp_size}",
            "--data-parallel-start-rank plus --data-parallel-size-local must fit",
        )
    if args.headless:
        return Parallel((), dp_size, headless=True, follower=follower)
    return Parallel(tuple(range(first, first + count)), dp_size)


def _check_modes(args: argparse.Namespace, *, external: bool, hybrid: bool) -> None:
    several = bool(args.data_parallel_multi_port_external_lb)
    if sum((several, external, hybrid)) > 1:
        raise _refused(
            "Cannot use more than one data parallel load balancing mode",
            "choose one of --data-parallel-multi-port-external-lb, "
            "--data-parallel-external-lb, --data-parallel-hybrid-lb",
        )
    if args.headless and (hybrid or external):
        mode = "hybrid" if hybrid else "external"
        raise _refused(
            f"data_parallel_{mode}_lb is not applicable in headless mode",
            "leave out --headless or the load-balancing mode",
        )
    if args.headless and args.api_server_count:
        raise _refused(
            f"--api-server-count={args.api_server_count} is not for --headless",
            "leave out --api-server-count",
        )
    if several:
        raise _refused(
            "the reference engine is no supervisor of several ports",
            "start one process per rank",
        )


def _local_size(
    args: argparse.Namespace, dp_size: int, nodes: int, *, hybrid: bool, external: bool
) -> int:
    """Return data-parallel ranks per process group, after the checks on nodes."""
    per_replica = (
        (args.tensor_parallel_size or 1)
        * (args.pipeline_parallel_size or 1)
        * (args.prefill_context_parallel_size or 1)
    )
    world = dp_size * per_replica
    if nodes > 1 and world % nodes:
        raise _refused(
            f"`--nnodes {nodes}` must evenly divide the total world size ({world})",
            "adjust --nnodes, --data-parallel-size or --tensor-parallel-size",
        )
    if nodes > 1 and not 0 <= (args.node_rank or 0) < nodes:
        raise _refused(
            f"`--node-rank` must be between 0 and {nodes - 1}; got {args.node_rank}",
            "set it to this node's index, from zero",
        )
    local = args.data_parallel_size_local
    if external:
        if local not in (1, None):
            raise _refused(
                "an external rank requires `--data-parallel-size-local 1`",
                "set it to 1 or leave it out",
            )
        return 1
    if local is not None:
        return int(local)
    if nodes > 1:
        return int(max(world // nodes // per_replica, 1))
    if hybrid:
        raise _refused(
            "`--data-parallel-hybrid-lb` requires `--data-parallel-size-local`",
            "set it to the ranks on this node",
        )
    return dp_size


def _nodes_per_replica(dp_size: int, local: int, nodes: int, *, external: bool) -> int:
    if nodes == 1:
        return 1
    groups = max(dp_size // max(local, 1), 1)
    if external:
        return max(nodes // groups, 1)
    if nodes % groups:
        raise _refused(
            f"nnodes ({nodes}) must be divisible by the number of data parallel node "
            f"groups ({groups} = data_parallel_size {dp_size} / "
            f"data_parallel_size_local {local})",
            "adjust --nnodes or --data-parallel-size-local",
        )
    return nodes // groups


def _refused(fact: str, hint: str) -> SpecError:
    return SpecError(f"Invalid data-parallel launch options: {fact}.", hint=hint)
