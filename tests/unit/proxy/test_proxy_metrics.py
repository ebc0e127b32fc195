"""The page of metrics, and that every answer is counted."""

from __future__ import annotations

import json
import logging
import re

import pytest

from pytest_pd.proxy.prometheus import Counter, Gauge, Histogram, page

LINE = re.compile(
    r"(# (HELP|TYPE) pd_proxy_\w+ .+"
    r'|pd_proxy_\w+(\{(\w+="[^"]*",?)+\})? [-+0-9.einfa]+)'
)


def test_a_counter_shows_its_series():
    counter = Counter("a_total", "Some.", ("worker",))
    counter.preset("y")
    counter.add("x")
    counter.add("x", by=2)

    assert page([counter]).splitlines() == [
        "# HELP a_total Some.",
        "# TYPE a_total counter",
        'a_total{worker="y"} 0',
        'a_total{worker="x"} 3',
    ]


def test_labels_are_escaped():
    counter = Counter("a_total", "Some.", ("worker",))
    counter.add('"\\\n')

    assert page([counter]).splitlines()[-1] == r'a_total{worker="\"\\\n"} 1'


def test_a_histogram_is_cumulative():
    histogram = Histogram("a_seconds", "Some.")
    for seconds in (0.0005, 0.001, 0.3, 1e6):
        histogram.observe(seconds)

    lines = page([histogram]).splitlines()
    assert 'a_seconds_bucket{le="0.001"} 2' in lines
    assert 'a_seconds_bucket{le="0.5"} 3' in lines
    assert 'a_seconds_bucket{le="300"} 3' in lines
    assert 'a_seconds_bucket{le="+Inf"} 4' in lines
    assert "a_seconds_count 4" in lines
    assert "a_seconds_sum 1000000.3015" in lines


def test_a_gauge_is_read_when_the_page_is_asked_for():
    values = [3.0]
    gauge = Gauge("a", "Some.", (), lambda: [((), values[0])])
    values[0] = 0.5

    assert page([gauge]).splitlines()[-1] == "a 0.5"


async def test_the_page_is_well_formed_and_starts_at_zero(pd):
    async with pd.world(prefill=2) as world:
        _, before = await world.get("/metrics")
        await world.complete()
        _, after = await world.get("/metrics")

        for line in after.splitlines():
            assert LINE.fullmatch(line), line
        names = [w.name for w in world.proxy.workers if w.role == "prefill"]
        for name in names:
            assert f'pd_proxy_prefill_requests_total{{worker="{name}"}} 0' in before


@pytest.mark.parametrize("status", [200, 400, 404, 422, 500])
async def test_every_status_is_counted(pd, status):
    async with pd.world(decode=[pd.FakeWorker(status=status)]) as world:
        got, _, _ = await world.complete()

        assert got == status
        labels = f'route="/v1/completions",status="{status}"'
        assert await world.metric(f"pd_proxy_responses_total{{{labels}}}") == 1


async def test_a_defect_of_the_proxy_is_a_counted_500(pd, monkeypatch, caplog):
    async with pd.world() as world:
        monkeypatch.setattr(
            "pytest_pd.proxy.flow.routing_key", lambda *_: 1 / 0, raising=True
        )
        status, headers, text = await world.complete(headers={"X-Request-Id": "r7"})

        assert status == 500
        assert json.loads(text)["error"]["code"] == "defect"
        assert headers["x-pd-request-id"] == "r7"
        labels = 'route="/v1/completions",status="500"'
        assert await world.metric(f"pd_proxy_responses_total{{{labels}}}") == 1
        assert "ZeroDivisionError" in caplog.text


async def test_each_request_is_one_line_with_workers_and_times(pd, caplog):
    caplog.set_level(logging.INFO, logger="pytest_pd.proxy")
    async with pd.world() as world:
        await world.complete(headers={"X-Request-Id": "r1"}, stream=True)
        await pd.until(lambda: "request id=r1" in caplog.text)

        (line,) = [m for m in caplog.messages if m.startswith("request id=r1 ")]
        fields = dict(word.split("=", 1) for word in line.split()[1:])
        assert fields["prefill"] == world.prefill[0].url
        assert fields["decode"] == world.decode[0].url
        assert (fields["status"], fields["outcome"], fields["pieces"]) == (
            "200",
            "ok",
            "4",
        )
        for stage in ("queue_ms", "prefill_ms", "first_byte_ms", "total_ms"):
            assert float(fields[stage]) >= 0
        assert float(fields["prefill_ms"]) < float(fields["first_byte_ms"])


async def test_keys_are_never_logged(pd, caplog):
    caplog.set_level(logging.DEBUG)
    decode = [pd.FakeWorker(status=500)]
    async with pd.world(decode=decode, api_key="hunter2") as world:
        await world.complete()
        await world.complete(headers={"Authorization": "Bearer hunter3"})

        sent = [seen.headers["Authorization"] for seen in decode[0].seen]
        assert sent == ["Bearer hunter2", "Bearer hunter3"]
        assert "hunter" not in caplog.text


async def test_handovers_say_what_prefill_gave(pd):
    gives = pd.FakeWorker(answer={"kv_transfer_params": {"remote_block_ids": [[1]]}})
    gives_none = pd.FakeWorker(answer={"kv_transfer_params": None})
    async with pd.world(prefill=[gives, gives_none], transfer="pull") as world:
        for _ in range(2):
            await world.complete()

        for fake, handover in ((gives, "params"), (gives_none, "none")):
            labels = f'worker="{fake.url}",handover="{handover}"'
            assert await world.metric(f"pd_proxy_handovers_total{{{labels}}}") == 1
