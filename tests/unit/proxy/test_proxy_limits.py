"""Rate limit, places and queue."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

from pytest_pd.proxy.limit import (
    Admission,
    QueueFullError,
    QueueTimeoutError,
    TokenBucket,
)


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


def test_a_bucket_lets_a_burst_through_and_then_the_rate():
    clock = Clock()
    bucket = TokenBucket(10.0, 2.0, clock=clock)

    assert [bucket.take(), bucket.take()] == [0.0, 0.0]
    assert bucket.take() == pytest.approx(0.1)
    clock.now_s += 0.1
    assert bucket.take() == 0.0
    assert bucket.take() == pytest.approx(0.1)


def test_a_bucket_does_not_save_more_than_its_size():
    clock = Clock()
    bucket = TokenBucket(10.0, 3.0, clock=clock)
    clock.now_s += 3600

    assert [bucket.take() == 0.0 for _ in range(4)] == [True, True, True, False]


def test_a_rate_of_zero_is_no_limit():
    bucket = TokenBucket(0.0, 0.0, clock=Clock())

    assert not any(bucket.take() for _ in range(1000))


async def test_a_place_goes_to_the_one_who_waits_longest():
    admission = Admission(1, 10, 60.0)
    order = []

    async def customer(name):
        async with admission.slot():
            order.append(name)
            await asyncio.sleep(0)

    await asyncio.gather(*(customer(name) for name in "abcd"))

    assert order == list("abcd")
    assert (admission.active, admission.depth) == (0, 0)


async def test_a_full_queue_refuses():
    admission = Admission(1, 1, 60.0)
    async with admission.slot():
        waiting = asyncio.create_task(admission.slot().__aenter__())
        await asyncio.sleep(0)

        with pytest.raises(QueueFullError):
            await admission.slot().__aenter__()

    await waiting
    assert admission.active == 1


async def test_a_wait_that_is_too_long_leaves_the_queue():
    admission = Admission(1, 1, 0.01)
    async with admission.slot():
        with pytest.raises(QueueTimeoutError):
            await admission.slot().__aenter__()

        assert admission.depth == 0
    assert admission.active == 0


@pytest.mark.parametrize("granted", [False, True])
async def test_a_place_is_never_lost_when_a_waiter_is_cancelled(granted):
    admission = Admission(1, 10, 60.0)
    first = admission.slot()
    await first.__aenter__()
    leaving = asyncio.create_task(admission.slot().__aenter__())
    staying = asyncio.create_task(admission.slot().__aenter__())
    await asyncio.sleep(0)

    if granted:  # the place and the cancellation come in the same moment
        await first.__aexit__(None, None, None)
        leaving.cancel()
    else:
        leaving.cancel()
        await first.__aexit__(None, None, None)

    await staying
    assert leaving.cancelled()
    assert (admission.active, admission.depth) == (1, 0)


async def test_over_the_rate_is_a_429_with_retry_after(pd):
    async with pd.world(rate_limit_rps=0.01, rate_burst=1) as world:
        first, _, _ = await world.complete()
        second, headers, text = await world.complete()

        assert (first, second) == (200, 429)
        assert 90 <= int(headers["Retry-After"]) <= 100
        assert json.loads(text)["error"]["code"] == "rate_limit_exceeded"
        assert await world.metric("pd_proxy_rate_limited_total") == 1
        assert len(world.prefill[0].seen) == 1


async def test_no_more_than_max_concurrent_reach_the_workers(pd):
    inside, most = 0, 0
    release = asyncio.Event()

    async def counts(request):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await release.wait()
        inside -= 1
        return web.json_response({})

    async with pd.world(
        decode=[pd.FakeWorker(behave=counts)], max_concurrent=2
    ) as world:
        calls = [asyncio.create_task(world.complete()) for _ in range(6)]
        await pd.until(lambda: world.proxy.flow.admission.depth == 4)
        await pd.until(lambda: inside == 2)
        assert await world.metric("pd_proxy_queue_depth") == 4
        assert await world.metric("pd_proxy_active_requests") == 2
        release.set()
        statuses = [status for status, _, _ in await asyncio.gather(*calls)]

        assert statuses == [200] * 6
        assert most == 2


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"max_queue": 0}, "queue_full"),
        ({"max_queue": 9, "queue_timeout_s": 0.02}, "queue_timeout"),
    ],
)
async def test_no_place_is_a_503_with_the_reason(pd, options, code):
    release = asyncio.Event()

    async def waits(request):
        await release.wait()
        return web.json_response({})

    worker = pd.FakeWorker(behave=waits)
    async with pd.world(decode=[worker], max_concurrent=1, **options) as world:
        holder = asyncio.create_task(world.complete())
        await pd.until(lambda: worker.seen)

        status, headers, text = await world.complete()

        assert status == 503
        assert json.loads(text)["error"]["code"] == code
        assert headers["Retry-After"] == "1"
        series = f'pd_proxy_queue_refused_total{{reason="{code}"}}'
        assert await world.metric(series) == 1
        release.set()
        assert (await holder)[0] == 200


async def test_a_client_that_leaves_the_queue_is_forgotten(pd):
    release = asyncio.Event()

    async def waits(request):
        await release.wait()
        return web.json_response({})

    worker = pd.FakeWorker(behave=waits)
    async with pd.world(decode=[worker], max_concurrent=1) as world:
        holder = asyncio.create_task(world.complete())
        await pd.until(lambda: worker.seen)
        leaver = asyncio.create_task(world.complete())
        await pd.until(lambda: world.proxy.flow.admission.depth == 1)

        leaver.cancel()
        await pd.until(lambda: world.proxy.flow.admission.depth == 0)

        release.set()
        assert (await holder)[0] == 200
        assert len(worker.seen) == 1


async def test_a_body_over_the_limit_is_a_413(pd):
    async with pd.world(max_body_bytes=1000) as world:
        status, _, text = await world.complete(prompt="x" * 5000)

        assert status == 413
        assert json.loads(text)["error"]["status"] == 413
        route = 'route="/v1/completions"'
        assert (
            await world.metric(f'pd_proxy_responses_total{{{route},status="413"}}') == 1
        )
