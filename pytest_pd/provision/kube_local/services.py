"""A stand-in for kube-proxy and for the cluster's names: Services on loopback.

A connection goes to one of the ready pods by chance, as kube-proxy has it: who keeps
a connection keeps the pod, who opens another may get another pod.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

from pytest_pd.provision.kube_local.api import Api

SERVICES = "/api/v1/services"
RETRY_S = 0.3
CHUNK = 65536

Backends = Callable[[str, Mapping[str, str]], Sequence[str]]
"""Namespace and selector to the addresses of the ready pods."""


class Services:
    """Every Service that has an address of its own, listened at."""

    def __init__(self, api: Api, backends: Backends, hosts: Path) -> None:
        self._api, self._backends, self._hosts = api, backends, hosts
        self._servers: dict[str, list[asyncio.Server]] = {}

    async def follow(self) -> None:
        """See every Service, now and later; begin again when a watch ends."""
        while True:
            with suppress(aiohttp.ClientError, OSError, ValueError, KeyError):
                _, answer = await self._api.request("GET", SERVICES)
                for service in answer["items"]:
                    await self.see(service)
                version = answer["metadata"]["resourceVersion"]
                async for event in self._api.watch(SERVICES, version):
                    if event["type"] == "ERROR":
                        break
                    if event["type"] == "DELETED":
                        self.lose(event["object"])
                    else:
                        await self.see(event["object"])
            await asyncio.sleep(RETRY_S)

    async def see(self, service: Mapping[str, Any]) -> None:
        """Listen for a Service that is new and has pods to choose from."""
        meta, spec = service["metadata"], service["spec"]
        address, uid = spec.get("clusterIP", "None"), meta["uid"]
        if address in ("None", "") or not spec.get("selector") or uid in self._servers:
            return
        self._servers[uid] = []
        name = f"{meta['name']}.{meta['namespace']}.svc"
        with self._hosts.open("a") as file:
            file.write(f"{address} {name} {name}.cluster.local\n")
        for port in spec.get("ports", ()):
            target = int(port.get("targetPort", port["port"]))
            with suppress(OSError):  # a port below 1024, for who is not root
                server = await self._listen(meta, spec, address, port["port"], target)
                self._servers[uid].append(server)

    async def _listen(
        self,
        meta: Mapping[str, Any],
        spec: Mapping[str, Any],
        address: str,
        port: int,
        target: int,
    ) -> asyncio.Server:
        def choose() -> tuple[str, int] | None:
            found = self._backends(meta["namespace"], spec["selector"])
            return (random.choice(found), target) if found else None

        async def accept(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            await join(reader, writer, choose())

        return await asyncio.start_server(accept, address, port)

    def lose(self, service: Mapping[str, Any]) -> None:
        """Stop to listen for a Service that was deleted."""
        for server in self._servers.pop(service["metadata"]["uid"], ()):
            server.close()

    def close(self) -> None:
        """Stop to listen."""
        for servers in self._servers.values():
            for server in servers:
                server.close()


async def join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    backend: tuple[str, int] | None,
) -> None:
    """Copy both ways between a client and a pod; without a pod, hang up."""
    try:
        if backend is None:
            return
        with suppress(OSError):
            upstream, downstream = await asyncio.open_connection(*backend)
            try:
                await asyncio.gather(copy(reader, downstream), copy(upstream, writer))
            finally:
                downstream.close()
    finally:
        writer.close()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy to the end, and say that it is the end."""
    with suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
