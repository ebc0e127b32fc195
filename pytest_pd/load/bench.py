"""Load from another machine: one process there sends every point of a topology.

It is a shard that stays (`shard_process`), started once behind a command such as
``srun``; what it sends and how it calibrates itself happens on its own machine, the
record comes back on our clock.
"""

from __future__ import annotations

import dataclasses
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

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
    describe,
    drain,
    merge,
    stop,
)
from pytest_pd.load.target import Target

MODULE = ("-m", "pytest_pd.load.shard_process")
LEAD_NS = NS // 20


@dataclass(slots=True)
class Bench:
    """A load process on another machine, started when it is first needed.

    Attributes:
        command: Words that run Python with this package there.
        env: Whole environment of the command; None is ours.
    """

    command: Sequence[str]
    env: Mapping[str, str] | None = None
    _shard: RunningShard | None = field(default=None, repr=False)

    def run(
        self,
        target: Target,
        point: LoadPoint,
        prompts: Sequence[Prompt],
        *,
        tokenizer: str = "unknown",
        on_tick: Callable[[Counters], None] | None = None,
    ) -> LoadResult:
        """Send `prompts` from there; as `run_load`.

        Raises:
            ProcessDied: the load process or its machine went away.
        """
        started_at_s = time.time()
        job = Job(target, point, tuple(prompts))
        (share,) = deal(point, job.prompts, 1)
        shard = self._ready()
        try:
            shard.send(describe(job, share, "auto", "auto"))
            shard.expect("ready")
            start_ns = time.monotonic_ns() + LEAD_NS
            shard.send({"start_ns": start_ns + shard.offset_ns})
            finished = collect([shard], on_tick)
        except BaseException:
            self.close()
            raise
        recorder, outcomes = merge(finished, len(job.prompts), None)
        return make_result(job, recorder, outcomes, tokenizer, started_at_s)

    def calibrate(self, rhythm: Rhythm, *, duration_s: float) -> Calibration:
        """Measure the instrument's error there, against a server beside it.

        Raises:
            MeasurementError: it cannot be measured there.
            ProcessDied: the load process or its machine went away.
        """
        shard = self._ready()
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
        """End the process, if it runs."""
        if self._shard is None:
            return
        shard, self._shard = self._shard, None
        stop(shard.process)
        if shard.drain is not None:
            shard.drain.join(10)

    def _ready(self) -> RunningShard:
        """Return the process, its clock compared with ours just now."""
        if self._shard is not None and self._shard.process.poll() is not None:
            self.close()
        if self._shard is None:
            self._shard = self._start()
        try:
            self._shard.compare_clocks(boot_id())
        except ProcessDied:
            self.close()
            raise
        return self._shard

    def _start(self) -> RunningShard:
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [*self.command, *MODULE],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env=None if self.env is None else dict(self.env),
            start_new_session=True,
        )
        shard = RunningShard(process, 0)
        shard.drain = threading.Thread(target=drain, args=(shard,), daemon=True)
        shard.drain.start()
        return shard
