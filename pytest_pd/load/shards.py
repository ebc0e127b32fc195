"""Several load processes as one: same schedule, common start, one merged record.

A shard is ``python -m pytest_pd.load.shard_process``; all it needs comes by its
standard input and all it has goes by its standard output, so that a shard runs
wherever a command can be started: here, behind ``ssh``, ``srun`` or ``kubectl exec``.
"""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from pytest_pd.errors import ProcessDied
from pytest_pd.load.clock import NS
from pytest_pd.load.engine import Counters
from pytest_pd.load.gpu import GpuReport
from pytest_pd.load.host import HostShare
from pytest_pd.load.record import Recorder
from pytest_pd.load.result import LoadResult
from pytest_pd.load.shard import Job, ShardOutcome, Share, deal

START_NS = NS // 20
"""From "all are ready" to the common start."""
PINGS = 7
TIME_FIELDS = ("intended_ns", "sent_before_ns", "sent_after_ns", "head_ns", "end_ns")
OnTick = Callable[[Counters], None]


def run_shards(
    job: Job,
    shards: int | Sequence[Sequence[str]],
    *,
    engine: str = "auto",
    scheduling: str = "auto",
    directory: Path | None = None,
    on_tick: OnTick | None = None,
) -> tuple[Recorder, list[ShardOutcome]]:
    """Run a job in several processes and return the merged record.

    Raises:
        ProcessDied: a shard ended early; the others are stopped.
    """
    prefixes = [()] * shards if isinstance(shards, int) else list(shards)
    shares = deal(job.point, job.prompts, len(prefixes))
    with started(prefixes[: len(shares)]) as running:
        hand_out(job, shares, running, engine, scheduling)
        for shard in running:
            shard.expect("ready")
        start_ns = time.monotonic_ns() + START_NS
        for shard in running:
            shard.send({"start_ns": start_ns + shard.offset_ns})
        finished = collect(running, on_tick)
    return merge(finished, len(job.prompts), directory)


def hand_out(
    job: Job,
    shares: Sequence[Share],
    running: Sequence[RunningShard],
    engine: str,
    scheduling: str,
) -> None:
    """Send every shard its share; the first one of a host watches its GPUs."""
    watched: set[str] = set()
    for shard, share in zip(running, shares, strict=True):
        first = shard.host not in watched
        watched.add(shard.host)
        message = describe(job, share, engine, scheduling)
        shard.send(message | {"watches_gpus": first})


def describe(job: Job, share: Share, engine: str, scheduling: str) -> dict[str, Any]:
    """Return the job of one shard as JSON; it goes by a pipe, never to a file or a
    command line, for the headers may hold a key."""
    target = dataclasses.asdict(job.target)
    target["ca_file"] = str(job.target.ca_file) if job.target.ca_file else None
    return {
        "engine": engine,
        "scheduling": scheduling,
        "target": target,
        "point": dataclasses.asdict(job.point),
        "rows": len(job.prompts),
        "prompts": {k: dataclasses.asdict(job.prompts[k]) for k in share.indices},
        "indices": share.indices,
        "offsets_ns": share.offsets_ns.tolist(),
        "concurrency": share.concurrency,
        "warmup": share.warmup,
        "number": share.number,
    }


@dataclasses.dataclass(slots=True)
class RunningShard:
    """A shard's process and its two pipes.

    Attributes:
        offset_ns: Its monotonic clock less ours; 0 on the same kernel.
        uncertainty_ns: Half the shortest round trip, 0 on the same kernel.
        host: Boot id of the kernel it runs under.
    """

    process: subprocess.Popen[bytes]
    number: int
    offset_ns: int = 0
    uncertainty_ns: int = 0
    host: str = ""
    errors: bytes = b""
    drain: threading.Thread | None = None

    def send(self, message: dict[str, Any]) -> None:
        try:
            _pipe(self.process.stdin).write(json.dumps(message).encode() + b"\n")
            _pipe(self.process.stdin).flush()
        except BrokenPipeError as error:
            raise self._died() from error

    def receive(self) -> dict[str, Any]:
        line = _pipe(self.process.stdout).readline()
        if not line:
            raise self._died()
        try:
            message: dict[str, Any] = json.loads(line)
        except ValueError as error:
            raise ProcessDied(
                f"Load shard {self.number} said {line[:200]!r}, which is no message.",
                hint="does a login there print something?",
            ) from error
        return message

    def expect(self, kind: str) -> dict[str, Any]:
        message = self.receive()
        if kind not in message:
            raise ProcessDied(f"Load shard {self.number} said {message}.")
        return message

    def read(self, size: int) -> bytes:
        data = _pipe(self.process.stdout).read(size)
        if len(data) < size:
            raise self._died()
        return data

    def compare_clocks(self, boot_id: str) -> None:
        """Learn the offset of its clock by the shortest of some round trips."""
        best = NS * 3600
        for _ in range(PINGS):
            before = time.monotonic_ns()
            self.send({"ping": 1})
            answer = self.expect("clock_ns")
            after = time.monotonic_ns()
            self.host = answer["boot_id"]
            if self.host == boot_id:
                return
            if after - before < best:
                best = after - before
                self.offset_ns = answer["clock_ns"] - (before + after) // 2
                self.uncertainty_ns = best // 2

    def _died(self) -> ProcessDied:
        self.process.kill()
        code = self.process.wait(10)
        if self.drain is not None:
            self.drain.join(5)  # its last words
        last = self.errors.decode("utf-8", "replace").strip().splitlines()[-3:]
        return ProcessDied(
            f"Load shard {self.number} ended with code {code}. {' | '.join(last)}",
            hint="is pytest-pd installed where the shard runs?",
        )


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


@contextmanager
def started(prefixes: Sequence[Sequence[str]]) -> Iterator[list[RunningShard]]:
    """Yield shards whose clocks were compared; none is left after the block."""
    command = [sys.executable, "-m", "pytest_pd.load.shard_process"]
    remote = ["python3", *command[1:]]
    running: list[RunningShard] = []
    pipe = subprocess.PIPE
    try:
        for number, prefix in enumerate(prefixes):
            words = [*prefix, *remote] if prefix else command
            process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe)
            shard = RunningShard(process, number)
            shard.drain = threading.Thread(target=drain, args=(shard,))
            shard.drain.start()
            running.append(shard)
        for shard in running:
            shard.compare_clocks(boot_id())
        yield running
    finally:
        for shard in running:
            stop(shard.process)
        for shard in running:
            if shard.drain is not None:
                shard.drain.join(10)


def drain(shard: RunningShard) -> None:
    """Keep the end of what the shard says on standard error."""
    with _pipe(shard.process.stderr) as pipe:
        for line in pipe:
            shard.errors = (shard.errors + line)[-4000:]


def stop(process: subprocess.Popen[bytes]) -> None:
    """Close its input, which ends it; kill it if that does not."""
    with suppress(BrokenPipeError):
        _pipe(process.stdin).close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)
    _pipe(process.stdout).close()


def boot_id() -> str:
    """Return what is the same for all processes under one running kernel."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


Finished = tuple[RunningShard, LoadResult, dict[str, Any]]


def collect(running: list[RunningShard], on_tick: OnTick | None) -> list[Finished]:
    """Read ticks and results; a thread each, for a full pipe stops a shard."""
    found: dict[int, Finished] = {}
    failures: list[Exception] = []
    ticks: dict[int, Counters] = {}

    def follow(shard: RunningShard) -> None:
        try:
            while "bytes" not in (message := shard.receive()):
                ticks[shard.number] = Counters(**message["tick"])
                if on_tick:
                    on_tick(total(list(ticks.values())))
            blob = shard.read(message["bytes"])
            found[shard.number] = (shard, LoadResult.load(io.BytesIO(blob)), message)
        except Exception as error:  # raised again where all threads are joined
            failures.append(error)
            for other in running:
                other.process.kill()

    threads = [threading.Thread(target=follow, args=(shard,)) for shard in running]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return [found[shard.number] for shard in running]


def total(counters: Any) -> Counters:
    """Return the sum over all shards."""
    each = [dataclasses.astuple(counter) for counter in counters]
    return Counters(*(sum(column) for column in zip(*each, strict=True)))


def merge(
    finished: Sequence[Finished], rows: int, directory: Path | None
) -> tuple[Recorder, list[ShardOutcome]]:
    """Join the records of all shards, on our clock. Samples are joined, never
    percentiles of them."""
    events = sum(len(result.columns["stamp_ns"]) for _, result, _ in finished)
    recorder = Recorder(rows, events, directory=directory)
    outcomes = []
    for shard, result, message in finished:
        mine = np.flatnonzero(result.requests["phase"])
        part = result.requests[mine]
        for name in TIME_FIELDS:
            part[name][part[name] != 0] -= shard.offset_ns
        columns = dict(result.columns)
        columns["stamp_ns"] = columns["stamp_ns"] - shard.offset_ns
        part["event_start"] += recorder.add_events(columns)
        part["text_start"] += recorder.add_text(result.texts)
        recorder.requests[mine] = part
        recorder.errors |= result.errors
        outcomes.append(
            ShardOutcome(
                counters=Counters(**message["counters"]),
                host=HostShare(**message["host"]),
                clock_steps=message["clock_steps"],
                engine=message["engine"],
                scheduling=message["scheduling"],
                gpus=GpuReport(**message["gpus"]),
                clock_uncertainty_s=shard.uncertainty_ns / NS,
            )
        )
    return recorder, outcomes
