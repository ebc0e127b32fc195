"""Load from other machines: processes there send every point of a topology.

Each is a shard that stays (`shard_process`), started once behind a command such as
``srun``; what it sends and how it calibrates itself happens on its own machine, the
records come back on our clock and are merged.
"""

from __future__ import annotations

import dataclasses
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle

from pytest_pd.errors import MeasurementError, ProcessDied
from pytest_pd.load.calibrate import Calibration, Rhythm
from pytest_pd.load.clock import NS
from pytest_pd.load.engine import Counters
from pytest_pd.load.point import LoadPoint
from pytest_pd.load.prompts import Prompt
from pytest_pd.load.result import LoadResult
from pytest_pd.load.run import make_result
from pytest_pd.load.shard import Job, deal
from pytest_pd.load.shards import (
    RunningShard,
    boot_id,
    collect,
    drain,
    hand_out,
    merge,
    stop,
)
from pytest_pd.load.target import Target

MODULE = ("-m", "pytest_pd.load.shard_process")
LEAD_NS = NS // 20


@dataclass(slots=True)
class Bench:
    """Load processes on other machines, each started when it is first needed.

    Attributes:
        command: Words that run Python with this package there.
        env: Whole environment of the commands; None is ours.
        more: The same for further machines, which only `shards` above 1 reach.
    """

    command: Sequence[str]
    env: Mapping[str, str] | None = None
    more: Sequence[Sequence[str]] = ()
    _running: dict[int, RunningShard] = field(default_factory=dict, repr=False)

    def run(
        self,
        target: Target,
        point: LoadPoint,
        prompts: Sequence[Prompt],
        *,
        tokenizer: str = "unknown",
        shards: int = 1,
        on_tick: Callable[[Counters], None] | None = None,
    ) -> LoadResult:
        """Send `prompts` from there; as `run_load`.

        Args:
            shards: Load processes: one a machine in turn, `command`'s first.

        Raises:
            ProcessDied: a load process or its machine went away.
        """
        started_at_s = time.time()
        job = Job(target, point, tuple(prompts))
        shares = deal(point, job.prompts, shards)
        running = self._ready(len(shares))
        try:
            hand_out(job, shares, running, "auto", "auto")
            for shard in running:
                shard.expect("ready")
            start_ns = time.monotonic_ns() + LEAD_NS
            for shard in running:
                shard.send({"start_ns": start_ns + shard.offset_ns})
            finished = collect(running, on_tick)
        except BaseException:
            self.close()
            raise
        recorder, outcomes = merge(finished, len(job.prompts), None)
        return make_result(job, recorder, outcomes, tokenizer, started_at_s)

    def calibrate(self, rhythm: Rhythm, *, duration_s: float) -> Calibration:
        """Measure the first process' error there, against a server beside it.

        Raises:
            MeasurementError: it cannot be measured there.
            ProcessDied: the load process or its machine went away.
        """
        (shard,) = self._ready(1)
        plain = dataclasses.asdict(rhythm)
        try:
            shard.send({"calibrate": plain, "duration_s": duration_s})
            answer = shard.receive()
        except BaseException:
            self.close()
            raise
        if "calibration" not in answer:
            raise MeasurementError(f"The load process cannot be calibrated: {answer}.")
        return Calibration.from_json(answer["calibration"])

    def close(self) -> None:
        """End the processes that run."""
        running, self._running = self._running, {}
        for shard in running.values():
            stop(shard.process)
        for shard in running.values():
            if shard.drain is not None:
                shard.drain.join(10)

    def _ready(self, count: int) -> list[RunningShard]:
        """Return that many processes, their clocks compared with ours just now."""
        if any(s.process.poll() is not None for s in self._running.values()):
            self.close()
        commands = cycle([self.command, *self.more])
        for number, command in zip(range(count), commands, strict=False):
            if number not in self._running:
                self._running[number] = self._start(number, command)
        running = [self._running[number] for number in range(count)]
        try:
            for shard in running:
                shard.compare_clocks(boot_id())
        except ProcessDied:
            self.close()
            raise
        return running

    def _start(self, number: int, command: Sequence[str]) -> RunningShard:
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [*command, *MODULE],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env=None if self.env is None else dict(self.env),
            start_new_session=True,
        )
        shard = RunningShard(process, number)
        shard.drain = threading.Thread(target=drain, args=(shard,), daemon=True)
        shard.drain.start()
        return shard
