"""Prefill first, decode second, and what each of them is sent."""

from __future__ import annotations

import asyncio
import json

PARAMS = {"do_remote_prefill": True, "remote_block_ids": [[1, 2]], "remote_port": 5600}


async def test_prefill_gets_one_token_and_decode_the_client_s_bytes(pd):
    async with pd.world(transfer="shared_storage") as world:
        status, headers, _ = await world.complete(
            max_tokens=7, n=2, stop=["x"], min_tokens=5, stream_options={}
        )

        assert status == 200
        (prefill,), (decode,) = world.prefill[0].seen, world.decode[0].seen
        assert prefill.body == {
            "model": "m", "prompt": "hello", "max_tokens": 1, "min_tokens": 1,
            "stream": False,
        }  # fmt: skip
        assert decode.body["max_tokens"] == 7
        assert "kv_transfer_params" not in decode.body
        assert headers["x-pd-prefill-worker"] == world.prefill[0].url
        assert headers["x-pd-decode-worker"] == world.decode[0].url


async def test_pull_passes_the_parameters_of_prefill_verbatim(pd):
    prefill = pd.FakeWorker(answer={"choices": [], "kv_transfer_params": PARAMS})
    async with pd.world(prefill=[prefill], transfer="pull") as world:
        await world.complete()

        assert prefill.seen[0].body["kv_transfer_params"]["do_remote_decode"] is True
        assert world.decode[0].seen[0].body["kv_transfer_params"] == PARAMS


async def test_streams_keep_the_worker_s_chunks(pd):
    pieces = [b"data: {", b'"x": 1}\n\n' + pd.event("b"), pd.event("c"), pd.DONE]
    async with pd.world(decode=[pd.FakeWorker(pieces=pieces)]) as world:
        body = {"model": "m", "prompt": "p", "stream": True}
        async with world.client.post(world.url + "/v1/completions", json=body) as got:
            chunks = [chunk async for chunk, _ in got.content.iter_chunks()]

        assert [chunk for chunk in chunks if chunk] == pieces


async def test_chunks_that_arrive_together_are_passed_on_apart(pd):
    pieces = [pd.event("a"), pd.event("b"), pd.DONE]
    frames = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces)

    async def at_once(request):
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        head += b"Transfer-Encoding: chunked\r\n\r\n"
        request.transport.write(head + frames + b"0\r\n\r\n")
        await asyncio.Event().wait()

    async with pd.world(decode=[pd.FakeWorker(behave=at_once)]) as world:
        body = {"model": "m", "prompt": "p", "stream": True}
        async with world.client.post(world.url + "/v1/completions", json=body) as got:
            chunks = [chunk async for chunk, _ in got.content.iter_chunks()]

        assert [chunk for chunk in chunks if chunk] == pieces


async def test_parameters_of_one_prompt_are_not_used_for_others(pd):
    prefill = pd.FakeWorker(answer={"kv_transfer_params": PARAMS})
    async with pd.world(prefill=[prefill], transfer="auto") as world:
        await world.complete(prompt=["x", "y"])

        assert "kv_transfer_params" not in prefill.seen[0].body
        assert "kv_transfer_params" not in world.decode[0].seen[0].body


async def test_chat_goes_through_both_stages(pd):
    async with pd.world() as world:
        message = [{"role": "user", "content": "hi"}]
        status, _, _ = await world.complete(
            "/v1/chat/completions", messages=message, max_completion_tokens=9
        )

        assert status == 200
        prefill = world.prefill[0].seen[0]
        assert prefill.path == "/v1/chat/completions"
        assert prefill.body["max_completion_tokens"] == prefill.body["max_tokens"] == 1
        assert world.decode[0].seen[0].body["max_completion_tokens"] == 9


async def test_prompt_logprobs_are_left_to_decode(pd):
    async with pd.world() as world:
        status, headers, _ = await world.complete(echo=True, logprobs=1)

        assert status == 200
        assert world.prefill[0].seen == []
        assert world.decode[0].seen[0].body["echo"] is True
        assert headers["x-pd-prefill-worker"] == "none"


async def test_a_4xx_of_prefill_reaches_the_client_unchanged(pd):
    error = {"error": {"message": "too long", "code": 400}}
    prefill = pd.FakeWorker(status=400, answer=error)
    async with pd.world(prefill=[prefill, pd.FakeWorker()]) as world:
        status, _, text = await world.complete()

        assert (status, json.loads(text)) == (400, error)
        assert world.decode[0].seen == []
        assert len(prefill.seen) == 1


async def test_headers_of_the_client_reach_both_stages(pd):
    async with pd.world() as world:
        _, headers, _ = await world.complete(
            headers={"Authorization": "Bearer k", "X-Request-Id": "r1"}
        )

        for fake in (world.prefill[0], world.decode[0]):
            assert fake.seen[0].headers["Authorization"] == "Bearer k"
            assert fake.seen[0].headers["X-Request-Id"] == "r1"
        assert headers["x-pd-request-id"] == "r1"


async def test_a_request_without_an_id_gets_one_for_both_stages(pd):
    async with pd.world() as world:
        _, headers, _ = await world.complete()

        ids = {
            fake.seen[0].headers["X-Request-Id"]
            for fake in (world.prefill[0], world.decode[0])
        }
        assert ids == {headers["x-pd-request-id"]}
        assert headers["x-pd-request-id"].startswith("pd-")
