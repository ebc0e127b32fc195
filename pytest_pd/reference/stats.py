"""The lines about throughput and transfers that vLLM logs every ten seconds."""

from __future__ import annotations

import asyncio
import logging
import statistics
import time
from collections.abc import Mapping, Sequence

from pytest_pd.reference.books import Books
from pytest_pd.reference.connector import Transfer

_engine_log = logging.getLogger("vllm.loggers")
_transfer_log = logging.getLogger("vllm.metrics")
_INTERVAL_S = 10.0
_MB = 2**20


class EngineStats:
    """What one engine did since it was last told.

    Args:
        books: Of the engine.
        rank: Global rank, as the line names it.
    """

    def __init__(self, books: Books, rank: int) -> None:
        self._books = books
        self._rank = rank
        self._prompt = self._generated = 0.0
        self._told_s = time.perf_counter()
        self._idle = True

    def lines(self) -> list[str]:
        """Return what is to be logged now; nothing while it stays idle."""
        value = self._books.metrics.value
        now = time.perf_counter()
        elapsed_s, self._told_s = now - self._told_s, now
        prompt = value("vllm:prompt_tokens_by_source_total", "local_compute")
        generated = value("vllm:generation_tokens_total")
        rates = (
            (prompt - self._prompt) / elapsed_s,
            (generated - self._generated) / elapsed_s,
        )
        self._prompt, self._generated = prompt, generated
        was_idle, self._idle = self._idle, not any(rates)
        transfers = self._books.take_transfers()
        if was_idle and self._idle and not transfers:
            return []
        told = [self._throughput(*rates)]
        return [*told, transfer_line(transfers)] if transfers else told

    def _throughput(self, prompt_rate: float, rate: float) -> str:
        value = self._books.metrics.value
        return (
            f"Engine {self._rank:03d}: "
            f"Avg prompt throughput: {prompt_rate:.1f} tokens/s, "
            f"Avg generation throughput: {rate:.1f} tokens/s, "
            f"Running: {value('vllm:num_requests_running'):.0f} reqs, "
            f"Waiting: {value('vllm:num_requests_waiting'):.0f} reqs, "
            f"CPU KV cache usage: {100 * value('vllm:kv_cache_usage_perc'):.1f}%, "
            f"Prefix cache hit rate: {self._hit_rate('prefix_cache'):.1f}%, "
            "External prefix cache hit rate: "
            f"{self._hit_rate('external_prefix_cache'):.1f}%"
        )

    def _hit_rate(self, cache: str) -> float:
        value = self._books.metrics.value
        queries = value(f"vllm:{cache}_queries_total")
        return 100 * value(f"vllm:{cache}_hits_total") / queries if queries else 0.0


def transfer_line(transfers: Sequence[Transfer]) -> str:
    """Return vLLM's line about the pulls of one interval; at least one is needed."""
    times_ms = sorted(1e3 * transfer.time_s for transfer in transfers)
    posts_ms = sorted(1e3 * transfer.post_s for transfer in transfers)
    sizes_mb = [transfer.size_bytes / _MB for transfer in transfers]
    total_s = sum(times_ms) / 1e3
    figures = {
        "Num successful transfers": len(transfers),
        "Avg xfer time (ms)": round(statistics.fmean(times_ms), 3),
        "P90 xfer time (ms)": round(_p90(times_ms), 3),
        "Avg post time (ms)": round(statistics.fmean(posts_ms), 3),
        "P90 post time (ms)": round(_p90(posts_ms), 3),
        "Avg MB per transfer": round(statistics.fmean(sizes_mb), 3),
        "Throughput (MB/s)": round(sum(sizes_mb) / total_s if total_s else 0.0, 3),
        "Avg number of descriptors": statistics.fmean(
            transfer.descriptors for transfer in transfers
        ),
    }
    return _joined(figures)


def _joined(figures: Mapping[str, float]) -> str:
    text = ", ".join(f"{name}={value}" for name, value in figures.items())
    return f"KV Transfer metrics: {text}"


def _p90(ordered: Sequence[float]) -> float:
    return ordered[min(int(0.9 * len(ordered)), len(ordered) - 1)]


async def log_stats(
    engines: Sequence[EngineStats], *, interval_s: float = _INTERVAL_S
) -> None:
    """Log what the engines did, every `interval_s`, until cancelled."""
    while True:
        await asyncio.sleep(interval_s)
        for engine in engines:
            for line in engine.lines():
                log = _transfer_log if line.startswith("KV") else _engine_log
                log.info("%s", line)
