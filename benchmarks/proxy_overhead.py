"""How much does the proxy add to the time to first token?

Backends of known delay stamp when a request was whole with them and when they sent
their answer (CLOCK_MONOTONIC, one host). The prefill stamps travel in
``kv_transfer_params`` to the decode backend, which puts all four into its first event.
So for each request

    overhead = TTFT - (time inside prefill) - (time inside decode)

is what everything else took. Arm A: the client itself does both stages on kept
connections (what no router can beat). Arm B: the same through the proxy. The arms
alternate, A B A B; stamps are user-space ones.

    python benchmarks/proxy_overhead.py
    python benchmarks/proxy_overhead.py --concurrency 1 16 --jitter 0   # in lockstep
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

now_ns = time.perf_counter_ns
HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Shape:
    """What the backends do and what they are asked.

    Attributes:
        jitter: Delays are uniform in nominal x (1 - jitter, 1 + jitter); 0 makes all
            requests of a closed loop arrive together, again and again.
    """

    prefill_s: float = 0.020
    decode_s: float = 0.010
    gap_s: float = 0.004
    tokens: int = 8
    jitter: float = 0.5
    prompt_characters: int = 4000


class Backend(asyncio.Protocol):
    """Both roles; which one a request means is told by its parameters."""

    def __init__(self, shape: Shape, dice: random.Random) -> None:
        self.shape = shape
        self.dice = dice
        self.buffer = b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.buffer += data
        head, found, rest = self.buffer.partition(HEAD_END)
        if not found:
            return
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        size = int(length[1]) if length else 0
        if len(rest) < size:
            return
        received_ns = now_ns()
        self.buffer = rest[size:]
        if head.startswith(b"GET"):
            self.answer(b"ok", "text/plain")
        else:
            self.dispatch(json.loads(rest[:size]), received_ns)

    def later(self, nominal_s, then, *args):
        spread = self.shape.jitter
        delay_s = nominal_s * self.dice.uniform(1 - spread, 1 + spread)
        asyncio.get_running_loop().call_later(delay_s, then, *args)

    def dispatch(self, body, received_ns):
        params = body["kv_transfer_params"]
        if params.get("do_remote_decode"):
            self.later(self.shape.prefill_s, self.prefilled, received_ns)
        else:
            self.later(self.shape.decode_s, self.first, params, received_ns)

    def prefilled(self, received_ns):
        stamps = {"prefill_ns": [received_ns, now_ns()]}
        self.answer(json.dumps({"kv_transfer_params": stamps}).encode())

    def first(self, params, received_ns):
        stamps = {**params, "decode_ns": [received_ns, now_ns()]}
        event = {"choices": [{"index": 0, "text": "a"}], "stamps": stamps}
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + chunk(event)
        )
        self.token(1)

    def token(self, number):
        if self.transport.is_closing():
            return
        if number < self.shape.tokens:
            event = {"choices": [{"index": 0, "text": "a"}], "n": number}
            self.transport.write(chunk(event))
            self.later(self.shape.gap_s, self.token, number + 1)
        else:
            self.transport.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

    def answer(self, body, kind="application/json"):
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        self.transport.write(head.encode() + body)


def chunk(event):
    data = b"data: " + json.dumps(event).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


class Client(asyncio.Protocol):
    """One kept connection, one request at a time."""

    def connection_made(self, transport):
        self.transport = transport
        self.got = b""
        self.done = None

    def connection_lost(self, error):
        if self.done is not None and not self.done.done():
            self.done.set_exception(ConnectionError(f"{error}; got {self.got!r}"))

    async def ask(self, request, end):
        """Return what came up to `end`, and when the first byte of it did."""
        self.got, self.end, self.first_ns = b"", end, 0
        self.done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        await self.done
        return self.got, self.first_ns

    def data_received(self, data):
        self.first_ns = self.first_ns or now_ns()
        self.got += data
        if self.got.endswith(self.end):
            self.done.set_result(None)


async def connect(port):
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(Client, "127.0.0.1", port)
    return client


def post(port, body):
    data = json.dumps(body).encode()
    return (
        f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    ).encode() + data


def body_of(shape, dice):
    prompt = "".join(dice.choices("abcdefgh ", k=shape.prompt_characters))
    return {"model": "m", "prompt": prompt, "stream": True, "max_tokens": shape.tokens}


async def through_proxy(ports, connections, body):
    """Return seconds of overhead of one request through the proxy."""
    request = post(ports["proxy"], body)
    started_ns = now_ns()
    got, first_ns = await connections["proxy"].ask(request, b"\r\n0\r\n\r\n")
    return overhead_s(got, started_ns, first_ns)


async def by_client(ports, connections, body):
    """Return seconds of overhead when the client itself does both stages."""
    wanted = {**body, "max_tokens": 1, "stream": False}
    wanted["kv_transfer_params"] = {"do_remote_decode": True}
    request = post(ports["prefill"], wanted)
    started_ns = now_ns()
    got, _ = await connections["prefill"].ask(request, b"}}")
    params = json.loads(got.partition(HEAD_END)[2])["kv_transfer_params"]
    request = post(ports["decode"], {**body, "kv_transfer_params": params})
    got, first_ns = await connections["decode"].ask(request, b"\r\n0\r\n\r\n")
    return overhead_s(got, started_ns, first_ns)


def overhead_s(got, started_ns, first_ns):
    if not got.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(got[:500].decode(errors="replace"))
    stamps = json.loads(re.search(rb'"stamps": (\{.*?\})', got)[1])
    inside = sum(stamps[f"{role}_ns"][1] - stamps[f"{role}_ns"][0] for role in ROLES)
    return (first_ns - started_ns - inside) / 1e9


ROLES = ("prefill", "decode")
ARMS = {"direct": by_client, "proxy": through_proxy}


async def run_arm(arm, ports, shape, *, concurrency, requests, seed):
    """Return the overheads of a closed loop in seconds, the first of each user out."""
    dice = random.Random(seed)
    each = requests // concurrency + 1
    bodies = [[body_of(shape, dice) for _ in range(each)] for _ in range(concurrency)]

    async def user(number):
        connections = {name: await connect(port) for name, port in ports.items()}
        await asyncio.sleep(dice.uniform(0, 0.05) if shape.jitter else 0)
        found = [await ARMS[arm](ports, connections, body) for body in bodies[number]]
        for connection in connections.values():
            connection.transport.close()
        return found[1:]

    users = await asyncio.gather(*(user(number) for number in range(concurrency)))
    return [sample for found in users for sample in found]


@contextmanager
def forked_backend(shape, seed):
    """Yield the port of a backend in a process of its own."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        asyncio.run(serve_backend(shape, seed, write))
        os._exit(0)
    os.close(write)
    try:
        with os.fdopen(read) as pipe:
            yield int(pipe.readline())
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


async def serve_backend(shape, seed, pipe):
    dice = random.Random(seed)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Backend(shape, dice), "127.0.0.1", 0)
    os.write(pipe, f"{server.sockets[0].getsockname()[1]}\n".encode())
    await server.serve_forever()


@contextmanager
def running_proxy(prefill, decode, extra):
    """Yield the port of a proxy started as a user starts it."""
    argv = [sys.executable, "-m", "pytest_pd.proxy", "--port", "0"]
    argv += ["--prefill-url", f"http://127.0.0.1:{prefill}"]
    argv += ["--decode-url", f"http://127.0.0.1:{decode}", *extra]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "proxy.log")
        with log.open("wb") as sink:
            process = subprocess.Popen(argv, stderr=sink)
        try:
            yield wait_for_port(process, log)
        finally:
            process.terminate()
            process.wait()


def wait_for_port(process, log):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"ready on http://[^ ]*:(\d+)", log.read_text()):
            return int(found[1])
        time.sleep(0.02)
    raise SystemExit(f"the proxy did not start:\n{log.read_text()}")


def quantiles_ms(samples):
    cuts = statistics.quantiles(samples, n=100, method="inclusive")
    return {
        name: cuts[at] * 1e3
        for name, at in (
            ("p25", 24),
            ("p50", 49),
            ("p75", 74),
            ("p90", 89),
            ("p99", 98),
        )
    }


def measure(ports, shape, concurrency, args):
    """Run A B A B, print each arm, and return the record."""
    rounds = []
    for number in range(args.rounds):
        for arm in ARMS:
            samples = asyncio.run(
                run_arm(
                    arm,
                    ports,
                    shape,
                    concurrency=concurrency,
                    requests=args.requests,
                    seed=1000 * concurrency + number,
                )
            )
            figures = quantiles_ms(samples)
            rounds.append({"arm": arm, "n": len(samples), **figures})
            text = "  ".join(f"{name} {value:6.3f}" for name, value in figures.items())
            print(f"C={concurrency:<3} {arm:<7} n={len(samples):<5} {text}  ms")
    medians = {a: [r["p50"] for r in rounds if r["arm"] == a] for a in ARMS}
    proxy, direct = (statistics.median(medians[a]) for a in ("proxy", "direct"))
    print(
        f"C={concurrency:<3} proxy p50 {proxy:.3f} ms, direct p50 {direct:.3f} ms, "
        f"added {proxy - direct:.3f} ms; arms' p50 "
        f"{[round(m, 3) for m in medians['proxy']]} against "
        f"{[round(m, 3) for m in medians['direct']]}"
    )
    return {
        "concurrency": concurrency,
        "rounds": rounds,
        "proxy_p50_ms": proxy,
        "direct_p50_ms": direct,
        "added_p50_ms": proxy - direct,
    }


def busy_s():
    """Return CPU seconds that this machine has spent on anything but idling."""
    user, nice, system, _, _, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split()[1:9]
    )
    ticks = user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")


def own_s():
    """Return CPU seconds of this process and of its children that have ended."""
    times = os.times()
    return sum(times[:4])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--requests", type=int, default=200, help="per arm")
    parser.add_argument("--rounds", type=int, default=2, help="of A B")
    parser.add_argument("--jitter", type=float, default=Shape().jitter)
    parser.add_argument("--tokens", type=int, default=Shape().tokens)
    parser.add_argument("--json", type=Path, help="write the record here")
    parser.add_argument("--proxy-args", nargs=argparse.REMAINDER, default=[])
    args = parser.parse_args()
    shape = Shape(jitter=args.jitter, tokens=args.tokens)
    started = now_ns(), busy_s(), own_s()
    with (
        forked_backend(shape, 1) as prefill,
        forked_backend(shape, 2) as decode,
        running_proxy(prefill, decode, args.proxy_args) as proxy,
    ):
        ports = {"prefill": prefill, "decode": decode, "proxy": proxy}
        found = [measure(ports, shape, c, args) for c in args.concurrency]
    wall_s = (now_ns() - started[0]) / 1e9
    others = (busy_s() - started[1] - own_s() + started[2]) / wall_s
    print(
        f"other processes used {others:.2f} of {os.cpu_count()} CPUs meanwhile; "
        f"load average now {os.getloadavg()[0]:.2f}"
    )
    if args.json:
        record = {"shape": asdict(shape), "results": found, "other_cpus": others}
        args.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
