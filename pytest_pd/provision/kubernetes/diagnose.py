"""After a failure: troubles of P/D on Kubernetes that have a name, looked for.

What a person would do with ``kubectl exec``, ``logs`` and ``get pods -l``: are the
workers reachable from the router's pod, is there an RDMA device, did NIXL connect,
does every selector match a pod.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pytest_pd.errors import ProvisionError
from pytest_pd.plan.model import Role, ServicePlan
from pytest_pd.probe.logs import read_text
from pytest_pd.provision.kubernetes.manifest import shared
from pytest_pd.provision.kubernetes.names import ROLE_LABEL, RUN, TOPOLOGY, pod_name
from pytest_pd.provision.kubernetes.pod import Setting, container_name
from pytest_pd.provision.kubernetes.resource import path_in

if TYPE_CHECKING:
    from pytest_pd.provision.kubernetes.allocation import Cluster
    from pytest_pd.provision.kubernetes.process import KubeProcess

EXEC_S = 20.0
SHOWN = 3
LINE_SHOWN = 200
NIXL_TROUBLE = re.compile(
    r"NIXL is not available|NIXL_ERR_\w+|nixl\w*(?:Error|Exception)"
    r"|NIXL[^\n]*(?:handshake|connect)[^\n]*(?:fail|refused|time[d ]*out)"
    r"|Failed to (?:initiali[sz]e|import) nixl",
    re.I,
)
CONNECT = """
for t in "$@"; do (
h=${t%:*}; p=${t##*:}
if command -v python3 >/dev/null 2>&1; then
said=$(python3 -S -c 'import socket,sys
try: socket.create_connection((sys.argv[1],int(sys.argv[2])),3).close()
except OSError as e: print(e); sys.exit(1)' "$h" "$p" 2>&1)
elif command -v bash >/dev/null 2>&1; then
said=$(timeout 3 bash -c 'exec 3<>/dev/tcp/$0/$1' "$h" "$p" 2>&1)
else echo "$t unknown"; exit; fi && echo "$t ok" || echo "$t" $said
) & done; wait"""
"""One line per ``host:port``: ``ok``, or why a connection is not possible."""

DEVICES = "ls /sys/class/infiniband 2>/dev/null; true"


def diagnose(
    cluster: Cluster, setting: Setting, processes: Sequence[KubeProcess]
) -> tuple[str, ...]:
    """Return the troubles that were found, a sentence each; never raises."""
    pods = {process.name: process for process in processes}
    found: list[str] = []
    for look in (selectors, backends, rdma, nixl):
        with suppress(ProvisionError, OSError, subprocess.SubprocessError):
            found += look(cluster, setting, pods)
    return tuple(found)


Pods = Mapping[str, "KubeProcess"]


def selectors(cluster: Cluster, setting: Setting, pods: Pods) -> Iterator[str]:
    """Yield every selector of ours that matches no pod."""
    if not pods:
        return
    wanted = {
        str(each["metadata"]["name"]): each["spec"]["selector"]
        for each in map(dict[str, Any], shared(setting))
        if each["kind"] == "Service" and each["spec"].get("selector")
    }
    if setting.spec.front == "discovery":
        labels = setting.scope.labels
        ours = {name: labels[name] for name in (RUN, TOPOLOGY)}
        for role in ("prefill", "decode"):
            wanted[f"--{role}-selector"] = {**ours, ROLE_LABEL: role}
    for name, selector in wanted.items():
        if not matches(cluster, selector):
            text = ",".join(f"{key}={value}" for key, value in selector.items())
            yield (
                f"selector: {name} matches no pod. It asks for {text}; what the pods "
                f"have: kubectl get pods -n {cluster.scope.namespace} --show-labels."
            )


def matches(cluster: Cluster, selector: Mapping[str, str]) -> int:
    """Return how many pods carry all labels."""
    text = ",".join(f"{key}={value}" for key, value in selector.items())
    path = path_in(cluster.scope.namespace, "Pod")
    answer = cluster.client.request("GET", path, query={"labelSelector": text})
    return len(answer.get("items", ()))


def backends(cluster: Cluster, setting: Setting, pods: Pods) -> Iterator[str]:
    """Yield the workers that the router's pod cannot connect to."""
    plan = setting.plan
    routers = [s for s in plan.services if s.role is Role.ROUTER and s.name in pods]
    workers = [
        e
        for e in plan.endpoints  # one that is down is told of as such
        if e.role is not Role.ROUTER and is_ready(pods, e.service)
    ]
    if not routers or not workers:
        return
    places = {target_of(each.known_as): each.service for each in workers}
    said = connections(cluster, setting, routers[0], places)
    if said:
        shown = [f"{places[at]} ({at}): {why}" for at, why in said.items()][:SHOWN]
        yield (
            f"backend: {len(said)} of {len(places)} workers cannot be reached from the "
            f"pod of {routers[0].name}: {'; '.join(shown)}. They are ready, so a "
            "name does not resolve or a NetworkPolicy is in the way."
        )


def is_ready(pods: Pods, service: str) -> bool:
    """Whether the cluster says that a service is ready."""
    return service in pods and pods[service].state.ready


def target_of(url: str) -> str:
    """Return ``host:port`` of a URL of the plan, as pods see it."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}"


def connections(
    cluster: Cluster, setting: Setting, source: ServicePlan, places: Mapping[str, str]
) -> dict[str, str]:
    """Return ``host:port`` to why a service's pod cannot connect there."""
    output = execute(cluster, setting, source, "sh", "-c", CONNECT, "sh", *places)
    lines = (line.partition(" ") for line in output.splitlines())
    return {
        place: why
        for place, _, why in lines
        if place in places and why not in ("ok", "unknown")
    }


def execute(
    cluster: Cluster, setting: Setting, service: ServicePlan, *words: str
) -> str:
    """Return what a command prints in a service's pod; empty when it cannot run."""
    name = pod_name(setting.spec, setting.scope, service)
    where = ["-n", cluster.scope.namespace, name, "-c", container_name(service)]
    done = subprocess.run(
        [*cluster.client.words, "exec", *where, "--", *words],
        capture_output=True,
        text=True,
        timeout=EXEC_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout


def rdma(cluster: Cluster, setting: Setting, pods: Pods) -> Iterator[str]:
    """Yield the pods that asked for an RDMA device and see none."""
    if setting.plan.rehearsal:  # nothing was asked for then
        return
    asked = [
        s for s in setting.plan.services if s.rdma_devices and is_ready(pods, s.name)
    ]
    for service in asked[:1]:  # one pod tells of the device plug-in of all
        if not execute(cluster, setting, service, "sh", "-c", DEVICES).strip():
            yield (
                f"RDMA: the pod of {service.name} asked for {service.rdma_devices} of "
                f"{setting.site.rdma_resource} and sees no device: "
                "/sys/class/infiniband is empty there. Correct "
                "kubernetes.rdma_resource, or leave rdma_devices out: NIXL goes over "
                "TCP then."
            )


def nixl(cluster: Cluster, setting: Setting, pods: Pods) -> Iterator[str]:
    """Yield that workers do not reach each other's NIXL, or say that it failed."""
    plan = setting.plan
    if plan.expected.transfer != "pull":
        return
    for service in plan.services:
        text = read_text(pods[service.name].log) if service.name in pods else ""
        if met := NIXL_TROUBLE.search(text):
            begin = text.rfind("\n", 0, met.start()) + 1
            line = text[begin:].partition("\n")[0][:LINE_SHOWN]
            yield f"NIXL: {service.name} says: {line}"
            break
    side = {at: name for at, name in side_channels(setting) if is_ready(pods, name)}
    readers = [s for s in plan.services if s.role is Role.DECODE and s.name in pods]
    if not side or not readers:
        return
    if said := connections(cluster, setting, readers[0], side):
        shown = [f"{side[at]} ({at}): {why}" for at, why in said.items()][:SHOWN]
        yield (
            f"NIXL: not connected. {len(said)} of {len(side)} prefill side channels "
            f"cannot be reached from the pod of {readers[0].name}: {'; '.join(shown)}."
        )


def side_channels(setting: Setting) -> Iterator[tuple[str, str]]:
    """Yield ``host:port`` and service of every prefill worker's side channel."""
    for service in setting.plan.services:
        port = service.ports.get("side_channel")
        if service.role is Role.PREFILL and port:
            yield f"{setting.addresses[service.node]}:{port}", service.name
