"""The stand-in's side of the API: requests and watches, asynchronous."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

MERGE = "application/merge-patch+json"
WATCH_S = 300


class Api:
    """The API server as its node's kubelet speaks to it."""

    def __init__(self, server: str, token: str, authority: str) -> None:
        context = ssl.create_default_context(cafile=authority)
        self._session = aiohttp.ClientSession(
            server,
            headers={"Authorization": f"Bearer {token}"},
            connector=aiohttp.TCPConnector(ssl=context, limit=64),
            read_bufsize=2**22,
        )

    async def close(self) -> None:
        """Hang up."""
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content: str = "application/json",
    ) -> tuple[int, dict[str, Any]]:
        """Return status and body; the caller judges the status."""
        data = None if body is None else json.dumps(body)
        async with self._session.request(
            method, path, data=data, headers={"Content-Type": content}
        ) as answer:
            return answer.status, await answer.json(content_type=None)

    async def watch(self, path: str, version: str) -> AsyncIterator[dict[str, Any]]:
        """Yield events until the server ends the watch."""
        query = {"watch": "true", "resourceVersion": version}
        query["timeoutSeconds"] = str(WATCH_S)
        timeout = aiohttp.ClientTimeout(total=None, sock_read=WATCH_S + 30)
        async with self._session.get(path, params=query, timeout=timeout) as answer:
            async for line in answer.content:
                yield json.loads(line)
