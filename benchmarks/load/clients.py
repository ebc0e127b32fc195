"""Clients as people write them, for comparison: asyncio with aiohttp or httpx.

    python clients.py aiohttp URL CONCURRENCY REQUESTS TOKENS OUT.json

writes, per request, the send time and the time of every event, monotonic ns. Needs
nothing of pytest-pd: it runs in a virtual environment of its own.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time

URL, TOKENS = "", 0


def body(k):
    return {"prompt": f"a {k} b", "max_tokens": TOKENS, "stream": True}


def count_events(data):
    return data.count(b'"text":')


async def one_aiohttp(session, k, out):
    stamps = []
    sent = time.monotonic_ns()
    headers = {"X-Request-Id": f"pd-{k}"}
    url = f"{URL}/v1/completions"
    async with session.post(url, json=body(k), headers=headers) as answer:
        async for data in answer.content.iter_any():
            stamps += [time.monotonic_ns()] * count_events(data)
    out[k] = [sent, stamps]


async def one_httpx(client, k, out):
    stamps = []
    sent = time.monotonic_ns()
    headers = {"X-Request-Id": f"pd-{k}"}
    url = f"{URL}/v1/completions"
    async with client.stream("POST", url, json=body(k), headers=headers) as answer:
        async for data in answer.aiter_raw():
            stamps += [time.monotonic_ns()] * count_events(data)
    out[k] = [sent, stamps]


async def run(kind, concurrency, requests):
    out, numbers = {}, iter(range(requests))

    async def stream(session, one):
        for k in numbers:
            await one(session, k, out)

    if kind == "aiohttp":
        import aiohttp

        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as made:
            streams = (stream(made, one_aiohttp) for _ in range(concurrency))
            await asyncio.gather(*streams)
    else:
        import httpx

        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(limits=limits, timeout=None) as made:
            await asyncio.gather(*(stream(made, one_httpx) for _ in range(concurrency)))
    return out


def main():
    global URL, TOKENS
    kind, URL, concurrency, requests, TOKENS, path = sys.argv[1:]
    TOKENS = int(TOKENS)
    before = resource.getrusage(resource.RUSAGE_SELF)
    found = asyncio.run(run(kind, int(concurrency), int(requests)))
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    with open(path, "w") as sink:  # noqa: PTH123
        json.dump({"requests": found, "cpu_s": cpu_s}, sink)


if __name__ == "__main__":
    main()
