"""Pods of the stand-in's node: each from its binding to its end."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_pd.installer.paths import search_path
from pytest_pd.provision.kube_local import expand, status
from pytest_pd.provision.kube_local.api import MERGE, Api
from pytest_pd.provision.kube_local.container import Container
from pytest_pd.provision.launcher import MARK

HOST_IMAGE = "pytest-pd.local/host"
"""The one image there is: programs and files of this machine."""

PROBE_TIMEOUT_S = 2.0
RESTART_S = 1.0


@dataclass(frozen=True, slots=True)
class Node:
    """What all pods of the node share.

    Attributes:
        hosts: Stands for the cluster's DNS: names of pods, appended to as they come.
        inherited: Variables that every container begins with.
    """

    api: Api
    folder: Path
    hosts: Path
    lease: Path
    inherited: Mapping[str, str]


@dataclass(slots=True)
class PodRunner:
    """One pod."""

    node: Node
    pod: dict[str, Any]
    address: str
    container: Container | None = None
    started: str = field(default_factory=status.now)
    stopping: bool = False
    ready: bool = False
    restarts: int = 0
    finished: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def namespace(self) -> str:
        return str(self.pod["metadata"]["namespace"])

    @property
    def name(self) -> str:
        return str(self.pod["metadata"]["name"])

    @property
    def labels(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self.pod["metadata"].get("labels") or {}
        return found

    @property
    def path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"

    @property
    def spec(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.pod["spec"]["containers"][0]
        return found

    async def report(self, found: Mapping[str, Any]) -> None:
        """Write the pod's status; a pod that is gone needs none."""
        with suppress(OSError):
            await self.node.api.request(
                "PATCH", f"{self.path}/status", {"status": found}, content=MERGE
            )

    async def run(self) -> None:
        """Run the pod's container until it ends for good or the pod is deleted."""
        try:
            await self._run()
        finally:
            self.finished.set()

    async def _run(self) -> None:
        if self.spec["image"].partition("@")[0] != HOST_IMAGE:
            image = self.spec["image"]
            why = f'failed to pull image "{image}": not found'
            await self.report(status.waiting(self.pod, "ErrImagePull", why))
            return
        self._publish()
        while not self.stopping:
            try:
                await self._start()
            except KeyError as why:
                reason = "CreateContainerConfigError"
                text = f"secret or key {why} not found"
                await self.report(status.waiting(self.pod, reason, text))
                return
            assert self.container is not None
            beside = asyncio.create_task(self._beside(self.container))
            how = await self.container.wait()
            beside.cancel()
            if self.pod["spec"].get("restartPolicy") != "Always" or self.stopping:
                await self.report(status.ended(self.pod, how, self.started))
                return
            self.restarts += 1
            await asyncio.sleep(RESTART_S)

    def _publish(self) -> None:
        """Make the pod's name known to the others."""
        spec = self.pod["spec"]
        if "hostname" in spec and "subdomain" in spec:
            name = f"{spec['hostname']}.{spec['subdomain']}.{self.namespace}.svc"
            with self.node.hosts.open("a") as file:
                file.write(f"{self.address} {name} {name}.cluster.local\n")

    async def _start(self) -> None:
        secrets = {
            name: each.get("data") or {}
            for name, each in (await self._named("secrets")).items()
        }
        configs = {
            name: plain_files(each.get("data") or {})
            | decoded_files(each.get("binaryData") or {})
            for name, each in (await self._named("configmaps")).items()
        }
        fields = {
            "status.podIP": self.address,
            "metadata.name": self.name,
            "metadata.namespace": self.namespace,
            "metadata.uid": self.pod["metadata"]["uid"],
            "spec.nodeName": self.pod["spec"].get("nodeName", ""),
        }
        own = expand.environment(self.spec.get("env", ()), fields, secrets)
        env = {**self.node.inherited, "HOSTNAME": self.name, **own}
        folder = self.node.folder / self.pod["metadata"]["uid"]
        self.container = Container(
            folder,
            expand.words(self.spec, env),
            env,
            mounts=list(self._mounts(folder, secrets, configs)),
            hosts=self.node.hosts,
            lease=self.node.lease,
            mark=own.get(MARK, f"pod/{self.namespace}/{self.name}"),
            grace_s=self.pod["spec"].get("terminationGracePeriodSeconds", 30),
        )
        await self.container.start()
        await self._report_running(ready="readinessProbe" not in self.spec)

    async def _report_running(self, *, ready: bool) -> None:
        self.ready = ready
        await self.report(
            status.running(
                self.pod,
                self.address,
                self.started,
                ready=ready,
                restarts=self.restarts,
            )
        )

    async def _named(self, kind: str) -> dict[str, Any]:
        """Return the objects of a kind in the pod's namespace by their names."""
        path = f"/api/v1/namespaces/{self.namespace}/{kind}"
        _, answer = await self.node.api.request("GET", path)
        return {each["metadata"]["name"]: each for each in answer.get("items", ())}

    def _mounts(self, folder: Path, secrets: Any, configs: Any) -> Any:
        """Write the volumes and yield (source, target) of each mount."""
        sources: dict[str, Path] = {}
        for volume in self.pod["spec"].get("volumes", ()):
            below = folder / "volumes" / volume["name"]
            below.mkdir(mode=0o700, parents=True, exist_ok=True)
            sources[volume["name"]] = below
            if "hostPath" in volume:
                sources[volume["name"]] = Path(volume["hostPath"]["path"])
            if "configMap" in volume:
                write_all(below, configs[volume["configMap"]["name"]])
            if "secret" in volume:
                name = volume["secret"]["secretName"]
                write_all(below, decoded_files(secrets[name]))
        for mount in self.spec.get("volumeMounts", ()):
            source = sources[mount["name"]] / mount.get("subPath", "")
            yield str(source), mount["mountPath"]

    async def _beside(self, container: Container) -> None:
        """Probe a container while it runs; end one that was deleted meanwhile."""
        if self.stopping:
            await container.stop(0.0)
        else:
            await self._probe()

    async def _probe(self) -> None:
        """Ask the container as its readiness probe says; report every change."""
        probe = self.spec.get("readinessProbe")
        was = False
        while probe:
            ready = await answers(self.address, probe)
            if ready != was:
                was = ready
                await self._report_running(ready=ready)
            await asyncio.sleep(probe.get("periodSeconds", 10))

    async def stop(self, grace_s: float) -> None:
        """End the container; then the pod may go."""
        self.stopping = True
        if self.container is not None:
            await self.container.stop(grace_s)
        await self.finished.wait()


def plain_files(data: Mapping[str, str]) -> dict[str, bytes]:
    """Return files from text."""
    return {name: text.encode() for name, text in data.items()}


def decoded_files(data: Mapping[str, str]) -> dict[str, bytes]:
    """Return files from base64, as the API gives what need not be text."""
    return {name: base64.b64decode(text) for name, text in data.items()}


def write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files of a ConfigMap or Secret."""
    for name, content in files.items():
        path = folder / name
        path.touch(mode=0o600)
        path.write_bytes(content)


async def answers(address: str, probe: Mapping[str, Any]) -> bool:
    """Ask once, as ``httpGet`` or ``tcpSocket`` says."""
    asked = probe.get("httpGet") or probe.get("tcpSocket") or {}
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(address, int(asked["port"]))
            try:
                if "tcpSocket" in probe:
                    return True
                path = asked.get("path", "/")
                head = f"GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n"
                writer.write(head.encode())
                line = await reader.readline()
                return 200 <= int(line.split()[1]) < 400
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError, IndexError):
        return False


def inherited(server: str) -> dict[str, str]:
    """Return what every container begins with: of the harness, where programs are."""
    host, _, port = server.removeprefix("https://").rpartition(":")
    return {
        "PATH": search_path(),
        "HOME": os.environ.get("HOME", "/"),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "KUBERNETES_SERVICE_HOST": host,
        "KUBERNETES_SERVICE_PORT": port,
    }
