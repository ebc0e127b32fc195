"""The control plane: etcd and NATS, which Dynamo's parts find each other through."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pytest_pd.plan.model import ReadyPlan
from pytest_pd.plan.seam import Launch, Worker
from pytest_pd.spec.front import ControlPlaneSpec

PORTS: Mapping[str, Mapping[str, int]] = {
    "etcd": {"etcd": 1, "etcd_peer": 1},
    "nats": {"nats": 1, "nats_http": 1},
}
"""Service to purpose and number of ports; the first is what peers use."""

PROGRAMS = {"etcd": "etcd", "nats": "nats-server"}


def launch(service: str, worker: Worker, spec: ControlPlaneSpec) -> Launch:
    """Return argv and readiness of one control-plane service.

    Source of the flags: etcd 3.4 to 3.5 and nats-server 2.9 to 2.15.
    """
    argv = _etcd(worker) if service == "etcd" else _nats(worker, spec)
    health = {"etcd": ("etcd", "health"), "nats": ("nats_http", "healthz")}
    purpose, page = health[service]
    return Launch(
        argv=(
            spec.executables.get(service, PROGRAMS[service]),
            *argv,
            *spec.args.get(service, ()),
        ),
        ready=ReadyPlan(
            "http", f"http://{worker.address}:{worker.ports[purpose]}/{page}", 60.0
        ),
        env_unset=(f"{service.upper()}_*",),
        endpoint=False,
        metrics_port="",
        files=_files(service, spec),
    )


def _etcd(worker: Worker) -> Iterator[str]:
    client = f"http://{worker.address}:{worker.ports['etcd']}"
    peer = f"http://{worker.address}:{worker.ports['etcd_peer']}"
    yield from ("--data-dir", f"{worker.site.run_dir}/etcd")
    yield from ("--listen-client-urls", client, "--advertise-client-urls", client)
    yield from ("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer)
    yield from ("--initial-cluster", f"default={peer}")


def _nats(worker: Worker, spec: ControlPlaneSpec) -> Iterator[str]:
    run_dir = worker.site.run_dir
    if spec.nats_max_payload_mb:
        yield from ("-c", f"{run_dir}/nats.conf")
    yield from ("-js", "-a", worker.address, "-p", str(worker.ports["nats"]))
    yield from ("-m", str(worker.ports["nats_http"]), "--store_dir", f"{run_dir}/nats")


def _files(service: str, spec: ControlPlaneSpec) -> dict[str, str]:
    if service != "nats" or not spec.nats_max_payload_mb:
        return {}
    # a payload limit is the one thing nats-server takes from a file only
    return {"nats.conf": f"max_payload: {spec.nats_max_payload_mb * 2**20}\n"}
