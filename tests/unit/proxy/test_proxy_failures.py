"""Workers that refuse, break and stall: before the first byte, and after it."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from aiohttp import web

PARAMS = {"do_remote_prefill": True, "remote_block_ids": [[1]]}
STREAM = {"model": "m", "prompt": "p", "stream": True}


async def test_a_dead_worker_is_passed_over(pd):
    async with pd.world(prefill=2, decode=2) as world:
        dead_prefill, dead_decode = (
            world.proxy.workers[0].name,
            world.proxy.workers[2].name,
        )
        await world.prefill[0].die()
        await world.decode[0].die()

        answers = [await world.complete() for _ in range(4)]

        assert [status for status, _, _ in answers] == [200] * 4
        assert {h["x-pd-prefill-worker"] for _, h, _ in answers} == {
            world.prefill[1].url
        }
        for role, name in (("prefill", dead_prefill), ("decode", dead_decode)):
            series = f'pd_proxy_{role}_errors_total{{worker="{name}",reason="connect"}}'
            assert await world.metric(series) == 1


@pytest.mark.parametrize("role", ["prefill", "decode"])
async def test_a_500_is_tried_on_another_worker(pd, role):
    async with pd.world(prefill=2, decode=2) as world:
        getattr(world, role)[0].status = 500

        statuses = [(await world.complete())[0] for _ in range(4)]

        assert statuses == [200] * 4
        series = f'pd_proxy_retries_total{{role="{role}",reason="status_500"}}'
        assert await world.metric(series) == 2


async def test_a_500_of_every_worker_reaches_the_client_as_it_is(pd):
    error = {"error": {"message": "EngineCore encountered an issue"}}
    decode = [pd.FakeWorker(status=500, answer=error) for _ in range(2)]
    async with pd.world(decode=decode) as world:
        status, _, text = await world.complete()

        assert (status, json.loads(text)) == (500, error)
        assert [len(fake.seen) for fake in decode] == [1, 1]


async def test_a_4xx_of_decode_is_not_tried_again(pd):
    decode = [pd.FakeWorker(status=429, answer={"error": 1}) for _ in range(2)]
    async with pd.world(decode=decode) as world:
        status, _, text = await world.complete()

        assert (status, json.loads(text)) == (429, {"error": 1})
        assert sum(len(fake.seen) for fake in decode) == 1


async def test_no_worker_left_is_a_503_that_names_the_role(pd):
    async with pd.world() as world:
        await world.decode[0].die()
        first, _, _ = await world.complete()
        second, headers, text = await world.complete()

        assert (first, second) == (502, 503)
        assert json.loads(text)["error"]["code"] == "no_decode_worker"
        assert headers["Retry-After"] == "1"
        assert len(world.prefill[0].seen) == 1, "prefill ran for nothing"


async def test_a_cut_before_the_first_event_is_tried_on_another_worker(pd):
    async def headers_only(request):
        return await pd.stream(request, [], end=False)

    decode = [pd.FakeWorker(behave=headers_only), pd.FakeWorker()]
    async with pd.world(decode=decode) as world:
        status, headers, text = await world.complete(stream=True)

        assert status == 200
        assert text.endswith("data: [DONE]\n\n")
        assert headers["x-pd-decode-worker"] == decode[1].url


async def test_a_worker_cut_in_the_middle_of_a_whole_answer_is_replaced(pd):
    async def half(request):
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.content_length = 100
        await response.prepare(request)
        await response.write(b'{"choices"')
        request.transport.close()
        return response

    decode = [pd.FakeWorker(behave=half), pd.FakeWorker()]
    async with pd.world(decode=decode) as world:
        status, _, text = await world.complete()

        assert (status, json.loads(text)) == (200, decode[1].answer)


async def test_pulled_kv_is_made_again_after_a_decode_worker_broke(pd):
    async def cut(request):
        return await pd.stream(request, [], end=False)

    prefill = pd.FakeWorker(answer={"kv_transfer_params": PARAMS})
    decode = [pd.FakeWorker(behave=cut), pd.FakeWorker()]
    async with pd.world(prefill=[prefill], decode=decode, transfer="pull") as world:
        await world.complete(stream=True)

        assert len(prefill.seen) == 2, "the first hand-over may have been consumed"


async def test_a_refused_connection_leaves_the_hand_over_good(pd):
    prefill = pd.FakeWorker(answer={"kv_transfer_params": PARAMS})
    async with pd.world(prefill=[prefill], decode=2, transfer="pull") as world:
        await world.decode[0].die()

        status, _, _ = await world.complete()

        assert status == 200
        assert len(prefill.seen) == 1


async def _read_until_broken(world):
    """Return the bytes of a stream, and whether HTTP said that it was whole."""
    got = b""
    async with world.client.post(
        world.url + "/v1/completions", json=STREAM
    ) as response:
        try:
            async for piece in response.content.iter_any():
                got += piece
        except aiohttp.ClientPayloadError:
            return got, False
    return got, True


@pytest.mark.parametrize("clean", [False, True], ids=["cut", "ended_without_done"])
async def test_a_stream_that_breaks_never_ends_cleanly(pd, clean):
    async def broken(request):
        return await pd.stream(request, [pd.event("a"), pd.event("b")], end=clean)

    decode = [pd.FakeWorker(behave=broken), pd.FakeWorker()]
    async with pd.world(decode=decode) as world:
        got, whole = await _read_until_broken(world)

        assert not whole
        assert got.startswith(pd.event("a") + pd.event("b"))
        assert b"[DONE]" not in got
        last = json.loads(got.strip().split(b"\n\n")[-1].removeprefix(b"data: "))
        assert last["error"]["code"] == "stream_broken"
        assert decode[0].url in last["error"]["message"]
        reason = "no_done" if clean else "broken_body"
        labels = f'worker="{decode[0].url}",reason="{reason}"'
        series = f"pd_proxy_stream_errors_total{{{labels}}}"
        assert await world.metric(series) == 1


async def test_a_stalled_stream_is_broken_after_the_idle_timeout(pd):
    async def stalls(request):
        await pd.stream(request, [pd.event("a")])
        await asyncio.sleep(3600)

    async with pd.world(
        decode=[pd.FakeWorker(behave=stalls)], idle_timeout_s=0.2
    ) as world:
        got, whole = await _read_until_broken(world)

        assert not whole
        assert b"timeout" in got


async def test_an_error_event_of_the_engine_is_passed_on_and_counted(pd):
    pieces = [pd.event("a"), b'data: {"error": {"message": "boom"}}\n\n', pd.DONE]
    async with pd.world(decode=[pd.FakeWorker(pieces=pieces)]) as world:
        got, whole = await _read_until_broken(world)

        assert (got, whole) == (b"".join(pieces), True)
        name = world.decode[0].url
        series = (
            f'pd_proxy_stream_errors_total{{worker="{name}",reason="engine_event"}}'
        )
        assert await world.metric(series) == 1


async def test_a_connection_closed_while_it_was_kept_is_opened_again(pd):
    async def closes(request):
        if len(world.decode[0].seen) == 2:
            request.transport.abort()
        return web.json_response({"choices": []})

    async with pd.world(decode=[pd.FakeWorker(behave=closes)]) as world:
        statuses = [(await world.complete())[0] for _ in range(3)]

        assert statuses == [200] * 3


@pytest.mark.parametrize("stage", ["prefill", "decode", "stream"])
async def test_a_client_that_leaves_takes_its_upstream_request_with_it(pd, stage):
    begun = asyncio.Event()

    async def waits(request):
        if stage == "stream":
            await pd.stream(request, [pd.event("a")])
        begun.set()
        await asyncio.sleep(3600)

    role = "prefill" if stage == "prefill" else "decode"
    waiting = pd.FakeWorker(behave=waits)
    async with pd.world(**{role: [waiting]}) as world:
        call = asyncio.create_task(world.complete(stream=True))
        await begun.wait()
        call.cancel()

        await waiting.gone.wait()
        await pd.until(lambda: all(w.active == 0 for w in world.proxy.workers))
        series = f'pd_proxy_client_disconnects_total{{stage="{stage}"}}'
        assert await world.metric(series) == 1
        route = 'route="/v1/completions"'
        assert (
            await world.metric(f'pd_proxy_responses_total{{{route},status="499"}}') == 1
        )
