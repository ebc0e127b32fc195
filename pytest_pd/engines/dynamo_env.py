"""What every Dynamo process has in its environment, and what it must not inherit."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_pd.plan.seam import Worker
from pytest_pd.spec.topology import TopologySpec

ENV_UNSET = ("DYN_*", "ETCD_*", "NATS_*")

STREAM_TIMEOUT_S = 30
"""A frozen worker would hold a stream for ever; after this it is migrated."""


def common(worker: Worker) -> dict[str, str]:
    """Return discovery, planes, addresses and logging of one process.

    With a control plane the processes find each other through etcd and talk over
    NATS, where the topology has it; without one they share a folder of the run.
    """
    address = worker.address
    env = {
        "DYN_LOGGING_JSONL": "true",
        "DYN_LOG": "info",
        "DYN_HTTP_HOST": address,
        "DYN_SYSTEM_HOST": address,
        "DYN_TCP_RPC_HOST": address,
        "DYN_TCP_RESPONSE_STREAM_HOST": address,
        "DYN_EVENT_PLANE_HOST": address,
    }
    env |= _discovery(worker.peers, worker.site.run_dir)
    if worker.topology.hardware_kinds == ("cpu",):
        env |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return env


def _discovery(peers: Mapping[str, str], run_dir: str) -> dict[str, str]:
    env = {}
    if "etcd" in peers:
        env["DYN_DISCOVERY_BACKEND"] = "etcd"
        env["ETCD_ENDPOINTS"] = f"http://{peers['etcd']}"
    else:
        env["DYN_DISCOVERY_BACKEND"] = "file"
        env["DYN_FILE_KV"] = f"{run_dir}/dynamo"
    plane = "nats" if "nats" in peers else ""
    env["DYN_REQUEST_PLANE"] = plane or "tcp"
    env["DYN_EVENT_PLANE"] = plane or "zmq"
    if plane:
        env["NATS_SERVER"] = f"nats://{peers['nats']}"
    return env


def python(topology: TopologySpec, executable: str | None) -> str:
    """Return the interpreter that has Dynamo.

    A container image brings its own ``python3``; elsewhere the wrapper of
    ``pytest-pd engines install dynamo`` is meant, unless a key says otherwise.
    """
    if executable:
        return executable
    return "python3" if topology.engine.image else "dynamo-python"
