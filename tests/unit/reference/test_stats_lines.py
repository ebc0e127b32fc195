"""The lines about throughput and transfers, as vLLM words them."""

from __future__ import annotations

import re

from pytest_pd.reference.connector import Transfer
from pytest_pd.reference.prompts import make_recall
from pytest_pd.reference.stats import EngineStats, transfer_line

REAL = (
    "KV Transfer metrics: Num successful transfers=5, Avg xfer time (ms)=2.951, "
    "P90 xfer time (ms)=5.374, Avg post time (ms)=1.7, P90 post time (ms)=4.193, "
    "Avg MB per transfer=0.938, Throughput (MB/s)=317.732, "
    "Avg number of descriptors=5.0"
)
"""From the log of a real vLLM 0.32 decode engine."""


def names(line: str) -> list[str]:
    return re.findall(r"([A-Z][\w /()]*)=", line)


def test_transfers_are_told_in_vllms_words():
    line = transfer_line([Transfer(183, 983_040, 5, 0.002, 0.001)] * 5)

    assert names(line) == names(REAL)
    assert "Num successful transfers=5" in line
    assert "Avg MB per transfer=0.938" in line
    assert "Throughput (MB/s)=468.75" in line


def test_the_ninetieth_percentile_is_one_of_the_times():
    line = transfer_line([Transfer(1, 1, 1, ms / 1e3) for ms in range(1, 11)])

    assert "P90 xfer time (ms)=10.0" in line
    assert "Avg xfer time (ms)=5.5" in line


def test_an_idle_engine_is_silent(make_bench):
    assert EngineStats(make_bench().engine.books, 0).lines() == []


def test_work_is_told_once_and_then_that_it_ended(make_bench):
    bench = make_bench()
    stats = EngineStats(bench.engine.books, 3)
    bench.ask(make_recall(0).text, max_tokens=5)

    (busy,) = stats.lines()
    (idle,) = stats.lines()

    assert busy.startswith("Engine 003: Avg prompt throughput: ")
    assert "Avg generation throughput: 0.0 tokens/s" not in busy
    assert "Avg generation throughput: 0.0 tokens/s" in idle
    assert stats.lines() == []


def test_hit_rates_are_in_percent(make_bench):
    bench = make_bench()
    prompt = make_recall("rates", length_tokens=96)
    bench.ask(prompt.text, max_tokens=1)
    bench.ask(prompt.text, max_tokens=1)

    (line,) = EngineStats(bench.engine.books, 0).lines()

    assert "Prefix cache hit rate: 41.7%" in line


def test_a_pull_is_told_once(make_bench):
    config = {"kv_connector": "ReferencePullConnector", "kv_role": "kv_both"}
    producer, consumer = make_bench(config), make_bench(config)
    prompt = make_recall("told")
    first = producer.ask(prompt.text, max_tokens=1, kv={"do_remote_decode": True})
    consumer.ask(prompt.text, max_tokens=1, kv=first.last.kv_transfer)
    stats = EngineStats(consumer.engine.books, 0)

    assert any("Num successful transfers=1" in line for line in stats.lines())
    assert not any("transfers" in line for line in stats.lines())


def test_the_server_logs_them(start_server):
    server = start_server(env={"VLLM_LOG_STATS_INTERVAL": "0.1"})
    server.complete(make_recall("logged").text, max_tokens=4)

    while "Avg generation throughput" not in server.log.read_text():
        assert server.popen.poll() is None
