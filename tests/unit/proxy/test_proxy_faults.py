"""Each fault does what it says, to the requests it is meant for."""

from __future__ import annotations

import json

import aiohttp
import pytest

from pytest_pd.errors import SpecError
from pytest_pd.proxy.fault import KINDS, Fault, FaultTable, parse_faults
from pytest_pd.proxy.worker import Health

PARAMS = [{"remote_block_ids": [[n]]} for n in range(4)]


def test_a_fault_begins_late_comes_again_and_ends():
    fault = Fault("cut", after=2, every=3, count=2)

    assert [n for n in range(20) if fault.falls_on(n)] == [2, 5]


def test_a_table_counts_from_its_last_change():
    fired = []
    table = FaultTable([Fault("cut", after=1)], on_fault=fired.append)
    assert [bool(table.next_request()) for _ in range(3)] == [False, True, True]

    table.replace([Fault("no_done", after=1)])

    assert [list(table.next_request()) for _ in range(2)] == [[], ["no_done"]]
    assert fired == ["cut", "cut", "no_done"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "an object with a 'kind'"),
        ('{"kind": "cutt"}', "'cutt' is not known"),
        ('{"kind": "cut", "att": 1}', "'att' is not known"),
        ('{"kind": "cut", "seconds": 1}', "'seconds' is not known"),
        ('{"kind": "cut", "at": -1}', "'at' cannot be -1"),
        ('{"kind": "cut", "at": true}', "'at' cannot be True"),
        ('{"kind": "cut", "every": 0}', "'every' cannot be 0"),
        ('{"kind": "pin_worker", "role": "router"}', "'role' cannot be 'router'"),
    ],
)
def test_a_wrong_fault_is_refused_with_what_is_wrong(text, message):
    with pytest.raises(SpecError) as caught:
        parse_faults(text)

    assert message in str(caught.value)


def test_every_kind_can_be_written_with_its_options():
    for kind, (effect, options) in KINDS.items():
        values = {name: getattr(Fault(kind), name) for name in options}
        (fault,) = parse_faults(json.dumps({"kind": kind, **values}))
        assert fault == Fault(kind)
        assert all(f"`{name}`" in effect for name in options), kind


def faulty(pd, text, **world):
    return pd.world(faults=parse_faults(text), **world)


async def streamed(world):
    """Return the events of a stream, and whether it ended as HTTP wants it."""
    body = {"model": "m", "prompt": "p", "stream": True}
    got, whole = b"", True
    async with world.client.post(world.url + "/v1/completions", json=body) as response:
        try:
            async for piece in response.content.iter_any():
                got += piece
        except aiohttp.ClientPayloadError:
            whole = False
    return [event for event in got.split(b"\n\n") if event], whole


def texts(events):
    """Return the texts of token events."""
    return [
        json.loads(event[6:])["choices"][0]["text"]
        for event in events
        if event.startswith(b'data: {"choices"')
    ]


async def test_bypass_prefill_begins_when_told(pd):
    async with faulty(pd, '{"kind": "bypass_prefill", "after": 1}') as world:
        headers = [(await world.complete())[1] for _ in range(2)]

        assert [h["x-pd-prefill-worker"] for h in headers] == [
            world.prefill[0].url,
            "none",
        ]
        assert len(world.prefill[0].seen) == 1
        assert await world.metric('pd_proxy_faults_total{kind="bypass_prefill"}') == 1


async def test_pin_worker_always_takes_one(pd):
    text = '{"kind": "pin_worker", "role": "prefill", "worker": 1}'
    async with faulty(pd, text, prefill=3) as world:
        for _ in range(4):
            await world.complete()

        assert [len(fake.seen) for fake in world.prefill] == [0, 4, 0]


async def test_drop_worker_never_takes_one(pd):
    async with faulty(pd, '{"kind": "drop_worker"}', decode=3) as world:
        for _ in range(6):
            await world.complete()

        assert [len(fake.seen) for fake in world.decode] == [0, 3, 3]


async def test_ignore_session_scatters_a_session(pd):
    async with faulty(
        pd, '{"kind": "ignore_session"}', decode=4, policy="consistent_hash"
    ) as world:
        for _ in range(40):
            await world.complete(headers={"x-session-id": "s"})

        assert sum(1 for fake in world.decode if fake.seen) > 1


async def test_prefill_decodes_lets_prefill_generate(pd):
    async with faulty(pd, '{"kind": "prefill_decodes"}') as world:
        await world.complete(max_tokens=9)

        assert world.prefill[0].seen[0].body["max_tokens"] == 9


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("kv_params_dropped", [None, None]), ("kv_params_stale", [PARAMS[0], PARAMS[0]])],
)
async def test_kv_parameters_go_astray(pd, kind, expected):
    prefill = pd.FakeWorker()
    async with faulty(
        pd, json.dumps({"kind": kind}), prefill=[prefill], transfer="pull"
    ) as world:
        for number in range(2):
            prefill.answer = {"kv_transfer_params": PARAMS[number]}
            await world.complete()

        got = [s.body.get("kv_transfer_params") for s in world.decode[0].seen]
        assert got == expected


@pytest.mark.parametrize("status", [404, 429, 500])
async def test_status_answers_without_a_worker(pd, status):
    fault = json.dumps({"kind": "status", "status": status, "count": 1})
    async with faulty(pd, fault) as world:
        answers = [await world.complete() for _ in range(2)]

        assert [got for got, _, _ in answers] == [status, 200]
        assert ("Retry-After" in answers[0][1]) == (status == 429)
        assert len(world.decode[0].seen) == 1


async def test_sse_error_ends_with_an_event(pd):
    async with faulty(pd, '{"kind": "sse_error", "at": 2}') as world:
        events, whole = await streamed(world)

        assert texts(events) == ["a", "b"]
        assert b'"error"' in events[-1]
        assert not whole


async def test_cut_says_nothing(pd):
    async with faulty(pd, '{"kind": "cut", "at": 2}') as world:
        events, whole = await streamed(world)

        assert texts(events) == ["a", "b"]
        assert len(events) == 2
        assert not whole


async def test_no_done_looks_whole_to_http(pd):
    async with faulty(pd, '{"kind": "no_done"}') as world:
        events, whole = await streamed(world)

        assert texts(events) == ["a", "b", "c"]
        assert events[-1] != b"data: [DONE]"
        assert whole


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "duplicate_token", "at": 1}, ["a", "b", "b", "c"]),
        ({"kind": "missing_token", "at": 0}, ["b", "c"]),
        ({"kind": "empty_first"}, ["", "a", "b", "c"]),
        ({"kind": "stall", "at": 1, "seconds": 0.01}, ["a", "b", "c"]),
        ({"kind": "bundle", "size": 2}, ["a", "b", "c"]),
    ],
)
async def test_tokens_are_changed_and_done_stays(pd, fault, expected):
    async with faulty(pd, json.dumps(fault)) as world:
        events, whole = await streamed(world)

        assert texts(events) == expected
        assert events[-1] == b"data: [DONE]"
        assert whole


async def test_bundle_sends_tokens_together(pd):
    async with faulty(pd, '{"kind": "bundle", "size": 3}') as world:
        body = {"model": "m", "prompt": "p", "stream": True}
        async with world.client.post(world.url + "/v1/completions", json=body) as got:
            chunks = [chunk async for chunk, _ in got.content.iter_chunks()]

        assert next(chunk.count(b"choices") for chunk in chunks if chunk) == 3


async def test_usage_is_wrong_by_one(pd):
    usage = {"usage": {"completion_tokens": 4}, "choices": []}
    pieces = [pd.event("a"), b"data: " + json.dumps(usage).encode() + b"\n\n", pd.DONE]
    decode = pd.FakeWorker(answer=usage, pieces=pieces)
    async with faulty(pd, '{"kind": "usage_wrong"}', decode=[decode]) as world:
        _, _, text = await world.complete()
        events, _ = await streamed(world)

        assert json.loads(text)["usage"]["completion_tokens"] == 5
        assert json.loads(events[-2][6:])["usage"]["completion_tokens"] == 5


async def test_metrics_freeze_and_double(pd):
    series = 'pd_proxy_requests_total{route="/v1/completions"}'
    async with pd.world(allow_faults=True) as world:
        await world.complete()

        await world.client.post(
            world.url + "/pd/faults", data='{"kind": "metrics_frozen"}'
        )
        frozen = [await world.metric(series)]
        await world.complete()
        frozen.append(await world.metric(series))
        await world.client.post(
            world.url + "/pd/faults", data='{"kind": "metrics_doubled"}'
        )
        doubled = await world.metric(series)
        await world.client.delete(world.url + "/pd/faults")

        assert (frozen, doubled, await world.metric(series)) == ([1, 1], 4, 2)


async def test_ready_lie_hides_a_dead_worker(pd):
    async with faulty(pd, '{"kind": "ready_lie"}') as world:
        world.proxy.workers[0].health = Health.DOWN

        assert (await world.get("/readiness"))[0] == 200
        assert (await world.get("/health"))[0] == 200


async def test_faults_change_while_it_runs(pd):
    async with pd.world(allow_faults=True) as world:
        url = world.url + "/pd/faults"
        async with world.client.post(url, data='{"kind": "bypass_prefill"}') as got:
            told = {"kind": "bypass_prefill", "after": 0, "every": 1, "count": None}
            assert await got.json() == [told]
        _, during, _ = await world.complete()
        async with world.client.post(url, data='{"kind": "bypas"}') as got:
            assert got.status == 400
            assert "bypass_prefill" in (await got.json())["error"]["message"]
        await world.client.delete(url)
        _, after, _ = await world.complete()

        assert during["x-pd-prefill-worker"] == "none"
        assert after["x-pd-prefill-worker"] == world.prefill[0].url


async def test_faults_cannot_be_changed_unless_allowed(pd):
    async with pd.world() as world:
        url = world.url + "/pd/faults"
        async with world.client.post(url, data='{"kind": "cut"}') as got:
            assert got.status == 404


async def test_a_refusal_may_come_as_a_success(pd):
    async with (
        faulty(pd, '{"kind": "status_lies"}') as world,
        world.client.get(world.url + "/v1/nothing") as response,
    ):
        assert response.status == 200
        assert "error" in await response.json()
