"""A stand-in for scheduler and kubelet: one node whose pods are processes here.

``python -m pytest_pd.provision.kube_local.kubelet CONFIG.json``. It binds pods that
fit (only GPUs are counted), runs each container's command, answers probes, reports
status, serves logs, exec and port-forward to the API server, and stands in for
kube-proxy.
"""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

from pytest_pd.provision.kube_local import status
from pytest_pd.provision.kube_local.api import MERGE, Api
from pytest_pd.provision.kube_local.container import TTL_S
from pytest_pd.provision.kube_local.pods import Node, PodRunner, inherited
from pytest_pd.provision.kube_local.serve import serve
from pytest_pd.provision.kube_local.services import Services
from pytest_pd.provision.lease_keeper import WIDTH, write_lease

NODE = "this-machine"
GPU = "nvidia.com/gpu"
RETRY_S = 0.3
PODS = "/api/v1/pods"


class Kubelet:
    """The node and its pods."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.api = Api(config["server"], config["token"], config["ca"])
        folder = Path(config["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        hosts = folder / "hosts"
        hosts.write_text(Path("/etc/hosts").read_text())
        hosts.chmod(0o644)
        env = inherited(config["server"])
        self.node = Node(self.api, folder, hosts, folder / "lease", env)
        self.services = Services(self.api, self.ready_pods, hosts)
        self.runners: dict[str, PodRunner] = {}
        self.tasks: set[asyncio.Task[Any]] = set()
        self.addresses: dict[tuple[str, str], str] = {}
        self.count = 0

    def spawn(self, work: Any) -> None:
        """Run something beside the rest."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def renew(self) -> None:
        """Keep the lease of all containers: they end when this process does."""
        while True:
            self.count += 1
            write_lease(str(self.node.lease), str(self.count).zfill(WIDTH))
            await asyncio.sleep(TTL_S / 5)

    async def register(self) -> None:
        """Make the node, with its GPUs and where its kubelet answers."""
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
        await self.api.request("POST", "/api/v1/nodes", node)
        room = {"cpu": "512", "memory": "8Ti", "pods": "500"}
        room[GPU] = str(self.config["gpus"])
        found = {
            "capacity": room,
            "allocatable": room,
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.config["port"]}},
            "conditions": [status.condition("Ready", True, "KubeletReady")],
        }
        path = f"/api/v1/nodes/{NODE}/status"
        await self.api.request("PATCH", path, {"status": found}, content=MERGE)

    async def follow(self) -> None:
        """See every pod, now and later; begin again when a watch ends."""
        while True:
            with suppress(aiohttp.ClientError, OSError, ValueError, KeyError):
                _, answer = await self.api.request("GET", PODS)
                for pod in answer["items"]:
                    await self.see(pod)
                version = answer["metadata"]["resourceVersion"]
                async for event in self.api.watch(PODS, version):
                    if event["type"] == "ERROR":
                        break
                    if event["type"] == "DELETED":
                        await self.lose(event["object"])
                    else:
                        await self.see(event["object"])
            await asyncio.sleep(RETRY_S)

    async def see(self, pod: dict[str, Any]) -> None:
        """Do what a pod's state asks for; anything that was done is not done again."""
        uid, spec = pod["metadata"]["uid"], pod["spec"]
        if pod["metadata"].get("deletionTimestamp"):
            runner = self.runners.get(uid)
            if runner is None or not runner.stopping:
                if runner is not None:
                    runner.stopping = True
                self.spawn(self.end(pod, runner))
        elif "nodeName" not in spec:
            await self.place(pod)
        elif uid not in self.runners and pod["status"].get("phase") == "Pending":
            runner = PodRunner(self.node, pod, self.address_of(pod))
            self.runners[uid] = runner
            self.spawn(runner.run())

    async def place(self, pod: dict[str, Any]) -> None:
        """Bind a pod to the node, or say why not."""
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        free = self.config["gpus"] - sum(gpus(r.pod) for r in self.living())
        if gpus(pod) > free:
            why = f"0/1 nodes are available: 1 Insufficient {GPU}."
            if pod["status"].get("conditions"):
                return
            body = {"status": status.unschedulable(why)}
            await self.api.request("PATCH", f"{path}/status", body, content=MERGE)
            return
        target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
            "target": target,
        }
        await self.api.request("POST", f"{path}/binding", binding)

    def living(self) -> list[PodRunner]:
        """Return the pods that hold their GPUs."""
        return [r for r in self.runners.values() if not r.finished.is_set()]

    def ready_pods(self, namespace: str, selector: Mapping[str, str]) -> list[str]:
        """Return the addresses of the pods that a Service sends connections to."""
        return [
            runner.address
            for runner in self.living()
            if runner.ready
            and runner.namespace == namespace
            and selector.items() <= runner.labels.items()
        ]

    def address_of(self, pod: dict[str, Any]) -> str:
        """Return the pod's address: the same for every pod of one name."""
        meta = pod["metadata"]
        key = (meta["namespace"], meta["name"])
        if key not in self.addresses:
            number = len(self.addresses)
            block = self.config["block"]
            self.addresses[key] = f"127.{block}.{1 + number // 250}.{1 + number % 250}"
        return self.addresses[key]

    async def end(self, pod: dict[str, Any], runner: PodRunner | None) -> None:
        """End a deleted pod's container, then let the pod go."""
        meta = pod["metadata"]
        if runner is not None:
            await runner.stop(float(meta.get("deletionGracePeriodSeconds", 1)))
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": meta["uid"]}}
        with suppress(aiohttp.ClientError, OSError):
            await self.api.request("DELETE", path, body)

    async def lose(self, pod: dict[str, Any]) -> None:
        """Forget a pod; end what still runs of one that was deleted by force."""
        runner = self.runners.pop(pod["metadata"]["uid"], None)
        if runner is not None and not runner.finished.is_set():
            self.spawn(runner.stop(0.0))

    def find(self, namespace: str, name: str) -> PodRunner | None:
        """Return the pod of that name, the youngest if there were several."""
        for runner in reversed(self.runners.values()):
            if (runner.namespace, runner.name) == (namespace, name):
                return runner
        return None

    async def run(self) -> None:
        """Work until told to end; then end every container."""
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, over.set)
        certs = Path(self.config["certs"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certs / "serving.crt", certs / "serving.key")
        # who may exec is us: nobody but the API server shows a certificate of our CA
        context.load_verify_locations(certs / "ca.crt")
        context.verify_mode = ssl.CERT_REQUIRED
        server = await serve(self.find, "127.0.0.1", self.config["port"], context)
        self.spawn(self.renew())
        await self.register()
        self.spawn(self.follow())
        self.spawn(self.services.follow())
        await over.wait()
        living = [r.container for r in self.living() if r.container]
        await asyncio.gather(*(each.stop(1.0) for each in living))
        self.services.close()
        server.close()
        await self.api.close()


def gpus(pod: dict[str, Any]) -> int:
    """Return the GPUs that a pod asks for."""
    return sum(
        int(each.get("resources", {}).get("limits", {}).get(GPU, 0))
        for each in pod["spec"]["containers"]
    )


async def work(config: dict[str, Any]) -> None:
    """Be the kubelet that a configuration describes."""
    await Kubelet(config).run()


if __name__ == "__main__":
    asyncio.run(work(json.loads(Path(sys.argv[1]).read_text())))
