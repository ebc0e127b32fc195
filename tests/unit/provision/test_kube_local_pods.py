"""Pods of the stand-in's node that are deleted at awkward moments."""

from __future__ import annotations

import asyncio

from pytest_pd.provision.kube_local.pods import HOST_IMAGE, Node, PodRunner
from pytest_pd.provision.lease_keeper import WIDTH, write_lease


class SlowApi:
    """Answers once its gate is open."""

    def __init__(self):
        self.gate = asyncio.Event()
        self.asked = asyncio.Event()

    async def request(self, method, path, body=None, **_):
        if method == "GET":
            self.asked.set()
            await self.gate.wait()
        return 200, {"items": []}


def pod():
    container = {"name": "one", "image": HOST_IMAGE, "command": ["sleep", "600"]}
    meta = {"name": "one", "namespace": "ns", "uid": "u1"}
    return {
        "metadata": meta,
        "spec": {"restartPolicy": "Always", "containers": [container]},
    }


async def renew(lease):
    """Keep what is started alive, as the node does."""
    for count in range(10**6):
        write_lease(str(lease), str(count).zfill(WIDTH))
        await asyncio.sleep(0.5)


def test_a_pod_that_is_deleted_while_it_starts_ends(tmp_path):
    async def delete_early():
        api = SlowApi()
        (tmp_path / "hosts").touch()
        env = {"PATH": "/usr/bin:/bin"}
        node = Node(api, tmp_path, tmp_path / "hosts", tmp_path / "lease", env)
        runner = PodRunner(node, pod(), "127.0.0.1")
        renewing = asyncio.create_task(renew(tmp_path / "lease"))
        running = asyncio.create_task(runner.run())
        await api.asked.wait()
        ending = asyncio.create_task(runner.stop(1.0))
        await asyncio.sleep(0)
        api.gate.set()
        async with asyncio.timeout(30):
            await asyncio.gather(running, ending)
        renewing.cancel()
        return runner

    assert asyncio.run(delete_early()).finished.is_set()
