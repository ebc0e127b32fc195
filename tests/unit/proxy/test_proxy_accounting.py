"""Whatever goes wrong, every request is accounted and nothing is left behind."""

from __future__ import annotations

import asyncio
import random
import re

import aiohttp
import pytest
from aiohttp import web

REQUESTS = 150


def moody(pd, dice):
    """Return a behaviour that is right two times in three."""

    async def behave(request):
        mood = dice.random()
        body = await request.json()
        if mood < 0.08:
            return web.json_response({"error": "x"}, status=500)
        if mood < 0.14:
            request.transport.abort()
            return web.Response()
        if mood < 0.20:
            return web.json_response({"error": "x"}, status=400)
        if mood < 0.26:
            await asyncio.sleep(0.05)
        if not body.get("stream"):
            return web.json_response({"choices": [], "kv_transfer_params": {"a": 1}})
        if mood < 0.34:
            return await pd.stream(request, [pd.event("a")], end=False)
        return await pd.stream(request, [pd.event("a"), pd.event("b"), pd.DONE])

    return behave


async def one_client(world, dice, number):
    """Send a request; one client in six leaves early. Return what it saw."""
    streams = dice.random() < 0.7
    call = world.complete(stream=streams, prompt=f"{number}")
    if dice.random() < 1 / 6:
        task = asyncio.create_task(call)
        await asyncio.sleep(dice.uniform(0, 0.03))
        task.cancel()
        return (await asyncio.gather(task, return_exceptions=True))[0]
    try:
        return await call
    except aiohttp.ClientError as error:
        return error


def total(page, name):
    """Return the sum over all series of a metric."""
    values = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", page, re.MULTILINE)
    return sum(float(value) for value in values)


@pytest.mark.parametrize("transfer", ["shared_storage", "pull"])
@pytest.mark.parametrize("policy", ["round_robin", "least_loaded", "consistent_hash"])
async def test_books_balance_after_a_storm(pd, transfer, policy):
    dice = random.Random(f"{transfer} {policy}")
    workers = [pd.FakeWorker(behave=moody(pd, dice)) for _ in range(5)]
    async with pd.world(
        prefill=workers[:2],
        decode=workers[2:],
        transfer=transfer,
        policy=policy,
        max_concurrent=8,
        max_queue=60,
        health_interval_s=0.02,
    ) as world:
        seen = await asyncio.gather(
            *(one_client(world, dice, number) for number in range(REQUESTS))
        )
        admission = world.proxy.flow.admission
        await pd.until(lambda: not admission.active and not admission.depth)
        await pd.until(lambda: not any(w.active for w in world.proxy.workers))
        _, page = await world.get("/metrics")

    # A client that left before its request was read was never seen by the proxy.
    arrived = total(page, "pd_proxy_requests_total")
    early = sum(isinstance(found, asyncio.CancelledError) for found in seen)
    assert REQUESTS - early <= arrived <= REQUESTS
    assert total(page, "pd_proxy_responses_total") == arrived
    assert total(page, "pd_proxy_outcomes_total") == arrived
    assert total(page, "pd_proxy_request_seconds_count") == arrived
    for role, fakes in (("prefill", workers[:2]), ("decode", workers[2:])):
        sent = total(page, f"pd_proxy_{role}_requests_total")
        assert sent >= sum(len(fake.seen) for fake in fakes)
    assert {type(found) for found in seen} <= {
        tuple,
        asyncio.CancelledError,
        aiohttp.ClientPayloadError,
    }


async def test_a_whole_answer_is_only_ever_a_whole_answer(pd):
    """A status of 200 that HTTP calls complete carries every token and [DONE]."""
    dice = random.Random(7)
    workers = [pd.FakeWorker(behave=moody(pd, dice)) for _ in range(3)]
    whole = pd.event("a") + pd.event("b") + pd.DONE
    async with pd.world(decode=workers, health_interval_s=0.02) as world:
        answers = 0
        for number in range(80):
            try:
                status, _, text = await world.complete(stream=True, prompt=f"{number}")
            except aiohttp.ClientPayloadError:
                continue
            if status == 200:
                answers += 1
                assert text.encode() == whole
        assert answers > 20
