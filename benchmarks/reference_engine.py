"""Start-up time, memory, speed and hand-over time of the reference engine.

    python benchmarks/reference_engine.py            # a table
    python benchmarks/reference_engine.py --json     # the same as JSON

Each figure is the median over `--repeats` runs, with its quartiles; the load average
before the run stands above the table.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import httpx

from pytest_pd.reference.prompts import make_recall

MODEL = Path(__file__).parents[1] / "fixtures" / "models" / "tiny"
DEADLINE_S = 60.0
ASK_REMOTE = {"do_remote_decode": True, "do_remote_prefill": False}


@dataclass(frozen=True)
class Server:
    """A running engine, and how long it took to be healthy."""

    url: str
    pid: int
    ready_s: float


@dataclass(frozen=True)
class Figure:
    """Samples of one quantity."""

    name: str
    unit: str
    samples: tuple[float, ...]

    def row(self) -> str:
        low, middle, high = statistics.quantiles(self.samples, n=4)
        count = len(self.samples)
        numbers = " ".join(f"{value:10.4g}" for value in (middle, low, high))
        return f"{self.name:44} {numbers} {self.unit} (n={count})"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serve(client: httpx.Client, *words: str) -> Iterator[Server]:
    """Yield a healthy engine; it is gone after the block."""
    port = free_port()
    argv = [sys.executable, "-m", "pytest_pd.reference", "serve", str(MODEL)]
    argv += ["--host", "127.0.0.1", "--port", str(port), *words]
    started = time.perf_counter()
    popen = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                client.get(f"{url}/health")
                break
            except httpx.TransportError:
                if (
                    popen.poll() is not None
                    or time.perf_counter() - started > DEADLINE_S
                ):
                    raise
                time.sleep(0.002)
        yield Server(url, popen.pid, time.perf_counter() - started)
    finally:
        popen.terminate()
        popen.wait(DEADLINE_S)


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def stream(client: httpx.Client, url: str, body: dict) -> list[float]:
    """Return the arrival times of the events of one stream, in seconds."""
    stamps = [time.perf_counter()]
    with client.stream("POST", f"{url}/v1/completions", json=body) as response:
        for line in response.iter_lines():
            if line.startswith("data: {"):
                stamps.append(time.perf_counter())
    return stamps


def starts(client: httpx.Client, repeats: int) -> list[Figure]:
    ready, fresh, used, stop = [], [], [], []
    for repeat in range(repeats):
        with serve(client) as server:
            ready.append(server.ready_s)
            fresh.append(resident_mb(server.pid))
            for seed in range(12):
                body = {"prompt": make_recall(f"{repeat}-{seed}", pairs=250).text}
                client.post(f"{server.url}/v1/completions", json=body)
            used.append(resident_mb(server.pid))
            leaving = time.perf_counter()
        stop.append(time.perf_counter() - leaving)
    return [
        Figure("start to /health 200", "s", tuple(ready)),
        Figure("resident memory, fresh", "MB", tuple(fresh)),
        Figure("resident memory, KV cache used once over", "MB", tuple(used)),
        Figure("SIGTERM to exit", "s", tuple(stop)),
    ]


def speeds(client: httpx.Client, repeats: int) -> list[Figure]:
    rates, gaps, first = [], [], []
    with serve(client, "--no-enable-prefix-caching") as server:
        for repeat in range(repeats + 1):
            body = {"prompt": make_recall(repeat, chain=1).text, "max_tokens": 400}
            stamps = stream(
                client, server.url, body | {"temperature": 0, "stream": True}
            )
            if repeat:  # the first one warms up
                first.append((stamps[1] - stamps[0]) * 1e3)
                rates.append((len(stamps) - 2) / (stamps[-1] - stamps[1]))
                ordered = sorted(b - a for a, b in pairwise(stamps[1:]))
                gaps.append(ordered[int(len(ordered) * 0.99)] * 1e3)
    return [
        Figure("one stream, 183 tokens in, 400 out", "tokens/s", tuple(rates)),
        Figure("its time to first token", "ms", tuple(first)),
        Figure("its 99th percentile between tokens", "ms", tuple(gaps)),
    ]


def hand_overs(client: httpx.Client, repeats: int, folder: Path) -> list[Figure]:
    found = []
    for style in ("pull", "files"):
        with ExitStack() as stack:
            producer, consumer = (
                stack.enter_context(
                    serve(client, "--kv-transfer-config", _config(style, role, folder))
                )
                for role in ("kv_producer", "kv_consumer")
            )
            times = [
                _decode_first_ms(client, producer, consumer, f"{style}{repeat}")
                for repeat in range(repeats + 1)
            ]
        found.append(
            Figure(f"decode TTFT after hand-over, {style}", "ms", tuple(times[1:]))
        )
    return found


def _config(style: str, role: str, folder: Path) -> str:
    if style == "pull":
        return json.dumps({"kv_connector": "ReferencePullConnector", "kv_role": role})
    extra = {"shared_storage_path": str(folder)}
    config = {"kv_connector": "ExampleConnector", "kv_role": role}
    return json.dumps(config | {"kv_connector_extra_config": extra})


def _decode_first_ms(
    client: httpx.Client, producer: Server, consumer: Server, seed: str
) -> float:
    prompt = make_recall(seed, pairs=200)
    body = {"prompt": prompt.text, "temperature": 0}
    asked = body | {"max_tokens": 1, "kv_transfer_params": ASK_REMOTE}
    handed = client.post(f"{producer.url}/v1/completions", json=asked).json()
    body |= {"kv_transfer_params": handed["kv_transfer_params"]}
    stamps = stream(client, consumer.url, body | {"max_tokens": 4, "stream": True})
    return (stamps[1] - stamps[0]) * 1e3


def main() -> int:
    """Measure and print."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    with (
        httpx.Client(trust_env=False, timeout=DEADLINE_S) as client,
        tempfile.TemporaryDirectory() as folder,
    ):
        figures = [
            *starts(client, args.repeats),
            *speeds(client, args.repeats),
            *hand_overs(client, args.repeats, Path(folder)),
        ]
    if args.json:
        entries = [
            {"name": f.name, "unit": f.unit, "samples": f.samples} for f in figures
        ]
        print(json.dumps({"load_average": load, "figures": entries}, indent=1))
        return 0
    print(f"load average before: {load:.2f} on {os.cpu_count()} cores")
    print(f"{'':44} {'median':>10} {'1st quart':>10} {'3rd quart':>10}")
    for figure in figures:
        print(figure.row())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
