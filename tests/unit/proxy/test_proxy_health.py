"""Health of workers: marked by failures and probes, reinstated by probes."""

from __future__ import annotations

import json
import logging

from pytest_pd.proxy.worker import Health


async def test_a_worker_that_comes_back_is_reinstated(pd):
    async with pd.world(health_interval_s=0.02) as world:
        worker = world.proxy.workers[1]
        world.decode[0].healthy = False
        await pd.until(lambda: worker.health is Health.DOWN)
        assert (await world.get("/readiness"))[0] == 503
        status, text = await world.get("/health")
        assert status == 503
        assert worker.name in json.loads(text)["unhealthy"]

        world.decode[0].healthy = True
        await pd.until(lambda: worker.health is Health.UP)

        assert (await world.get("/health"))[0] == 200
        assert (await world.complete())[0] == 200


async def test_a_worker_that_starts_late_is_not_an_error_and_is_seen_soon(pd, caplog):
    caplog.set_level(logging.INFO, logger="pytest_pd.proxy")
    late = pd.FakeWorker(healthy=False)
    async with pd.world(decode=[late]) as world:  # the next round is in an hour
        assert world.proxy.workers[1].health is Health.DOWN
        late.healthy = True
        await pd.until(lambda: world.proxy.workers[1].health is Health.UP)

        assert f"decode worker {late.url} is not up yet" in caplog.messages
        assert {record.levelname for record in caplog.records} == {"INFO"}


async def test_one_failed_probe_is_not_enough(pd):
    async with pd.world() as world:
        worker = world.proxy.workers[0]
        worker.failed("once", threshold=2)
        assert worker.health is Health.UP
        worker.failed("twice", threshold=2)
        assert worker.health is Health.DOWN


async def test_readiness_counts_workers_by_role(pd):
    async with pd.world(prefill=2, decode=3) as world:
        world.proxy.workers[0].health = Health.DOWN
        status, text = await world.get("/readiness")

        assert status == 200
        assert json.loads(text) == {
            "status": "ready",
            "prefill": {"healthy": 1, "total": 2},
            "decode": {"healthy": 3, "total": 3},
        }


async def test_a_500_does_not_take_a_worker_down(pd):
    async with pd.world(decode=[pd.FakeWorker(status=500)]) as world:
        for _ in range(5):
            await world.complete()

        assert world.proxy.workers[1].health is Health.UP


async def test_list_workers_shows_health_and_load(pd):
    async with pd.world() as world:
        _, text = await world.get("/list_workers")

        workers = json.loads(text)["workers"]
        assert [w["worker_type"] for w in workers] == ["prefill", "decode"]
        assert [w["url"] for w in workers] == [w.name for w in world.proxy.workers]
        assert all(w["is_healthy"] and w["load"] == 0 for w in workers)


async def test_models_and_tokenize_come_from_decode(pd):
    async with pd.world() as world:
        status, text = await world.get("/v1/models")
        async with world.client.post(
            world.url + "/tokenize", json={"prompt": "x"}
        ) as got:
            assert got.status == 200

        assert (status, json.loads(text)) == (200, world.decode[0].answer)
        assert [seen.path for seen in world.decode[0].seen] == [
            "/v1/models",
            "/tokenize",
        ]
        assert world.prefill[0].seen == []


async def test_an_unknown_path_is_an_openai_error(pd):
    async with pd.world() as world:
        status, text = await world.get("/v1/nothing")

        assert status == 404
        assert json.loads(text)["error"]["status"] == 404


async def test_liveness_needs_no_worker(pd):
    async with pd.world() as world:
        for worker in world.proxy.workers:
            worker.health = Health.DOWN

        assert await world.get("/liveness") == (200, "OK")


async def test_models_come_from_another_worker_when_the_first_is_dead(pd):
    async with pd.world(decode=2) as world:
        await world.decode[0].die()

        assert (await world.get("/v1/models"))[0] == 200
        await world.decode[1].die()
        status, text = await world.get("/v1/models")
        assert status == 502
        assert world.decode[1].url in json.loads(text)["error"]["message"]
