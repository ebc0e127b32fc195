"""One service as a step of a Slurm job, under a launcher on its node."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pytest_pd.errors import InfrastructureLost
from pytest_pd.provision.lease import disown
from pytest_pd.provision.rundir import RunDir, read_record
from pytest_pd.provision.slurm_client import SlurmClient
from pytest_pd.provision.slurm_text import step_env
from pytest_pd.provision.slurm_watch import JobWatch

RECORD_S = 5.0
JUDGE_S = 5.0
GONE_S = 15.0
LOOK_S = 0.02
TAIL_BYTES = 4096
LOST_NODE = "Node failure on"


@dataclass(slots=True)
class JobHandle:
    """One job of ours: whom to ask about it, and its steps by name."""

    job: str
    client: SlurmClient
    watch: JobWatch
    _steps: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def step(self, name: str) -> str | None:
        """Return the id of a running step; one query serves all of them."""
        with self._lock:
            if name not in self._steps:
                self._steps = self.client.steps(self.job) or {}
            return self._steps.get(name)

    def forget_steps(self) -> None:
        """Ask again next time: a step was started."""
        self._steps = {}

    def verdict(self) -> str:
        """Return why the job is over, or an empty string while it goes on.

        A job that is COMPLETING has ended; how is told only when it is through.
        """
        end_s = time.monotonic() + JUDGE_S
        while True:
            view = self.watch.view(self.job, now=True)
            if view.over:
                return view.story
            if view.state != "COMPLETING":
                return ""
            if time.monotonic() > end_s:
                return "is ending"
            time.sleep(min(1.0, LOOK_S + self.watch.due_in_s()))


def wait_for(done: Callable[[], bool], seconds: float) -> bool:
    """Look until `done` or until the time is over; returns whether it was."""
    end_s = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end_s:
            return False
        time.sleep(LOOK_S)
    return True


class SlurmStep:
    """A service that runs as ``srun --overlap`` in a job.

    Our end is the srun process, which ends at once when the step does; how it
    ended is in the record of its launcher, and else in the state of the job. What
    srun itself says lies in `said`, apart from the service's log.
    """

    def __init__(
        self,
        name: str,
        node: str,
        log: Path,
        said: Path,
        run: RunDir,
        *,
        step: str,
        handle: JobHandle,
        popen: subprocess.Popen[bytes],
        send: Callable[[str, int, int, int], None],
    ) -> None:
        self._name = name
        self._node = node
        self._log = log
        self._said = said
        self._run = run
        self._step = step
        self._handle = handle
        self._popen = popen
        self._send = send
        self._code: int | None = None
        self._lost = ""

    @property
    def name(self) -> str:
        return self._name

    @property
    def log(self) -> Path:
        return self._log

    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal; the service's own code.

        Raises:
            InfrastructureLost: the job or the node ended, not the service.
        """
        if self._lost:
            raise self._lost_error()
        if self._code is None and self._popen.poll() is not None:
            self._settle(self._popen.returncode)
        elif self._code is None:
            view = self._handle.watch.view(self._handle.job)
            if view.over:
                self._lost = view.story
        if self._lost:
            raise self._lost_error()
        return self._code

    def identity(self) -> Mapping[str, str | int]:
        """Return job, step name, node, and pid with start time on that node."""
        record = read_record(self._run.started(self._name))
        return {
            "job": self._handle.job,
            "step": self._step,
            "node": self._node,
            "pid": int(record.get("pid", 0)),
            "start_time": int(record.get("start_time", 0)),
        }

    def stop(self, *, grace_s: float) -> None:
        """End the step: asked first, then its launcher at once, then by Slurm."""
        if self._popen.poll() is None and grace_s > 0:
            self._tell_launcher("TERM", grace_s)
        if self._popen.poll() is None:
            self._tell_launcher("USR1", 2.0)
        if self._popen.poll() is None:
            step = self._handle.step(self._step)
            if step:
                self._handle.client.cancel(step)
            self._end_srun(GONE_S if step else 0.0)

    def kill(self, signal: int) -> None:
        """Send a signal to the service and all below it, on its node."""
        record = read_record(self._run.started(self._name))
        if record:
            pid, start = record["launcher_pid"], record["launcher_start_time"]
            self._send(self._node, int(pid), int(start), signal)

    def disown(self) -> None:
        """Let step and srun outlive this process."""
        disown(self._popen)

    def _tell_launcher(self, name: str, seconds: float) -> None:
        if step := self._handle.step(self._step):
            self._handle.client.cancel(step, signal=name)
            wait_for(lambda: self._popen.poll() is not None, seconds)

    def _end_srun(self, seconds: float) -> None:
        """Wait for srun; one whose step is gone or never came is ended itself."""
        if wait_for(lambda: self._popen.poll() is not None, seconds):
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._popen.pid, number)
            if wait_for(lambda: self._popen.poll() is not None, GONE_S):
                return

    def _settle(self, returncode: int) -> None:
        """Find out how the step ended."""
        path = self._run.ended(self._name)
        if returncode == 0:
            # The launcher wrote its record before it ended; a shared file system
            # may show it to us later.
            wait_for(path.exists, RECORD_S)
        record = read_record(path)
        if "exit_code" in record and record.get("reason") == "exited":
            self._code = int(record["exit_code"])
            return
        self._lost = self._handle.verdict() or self._lost_node()
        if self._lost:
            return
        if "exit_code" not in record:
            self._show_srun()
        self._code = int(record.get("exit_code", 0)) or step_code(returncode)

    def _lost_node(self) -> str:
        return f"lost node {self._node}" if LOST_NODE in self._srun_said() else ""

    def _srun_said(self) -> str:
        """Return the end of what srun and Slurm's daemon on the node said."""
        try:
            return self._said.read_bytes()[-TAIL_BYTES:].decode(errors="replace")
        except OSError:
            return ""

    def _show_srun(self) -> None:
        """Put srun's words where the user looks: the service never said a word."""
        with contextlib.suppress(OSError), self._log.open("a") as log:
            log.write(self._srun_said())

    def _lost_error(self) -> InfrastructureLost:
        return InfrastructureLost(
            f"{self._name} on {self._node} is gone: Slurm job {self._handle.job} "
            f"{self._lost}.",
            hint=f"`scontrol show job {self._handle.job}` shows more; "
            "it says nothing about the service",
            where=self._log,
        )


def step_code(returncode: int) -> int:
    """Turn srun's exit code into ours: above 128 it stands for a signal."""
    return 128 - returncode if returncode > 128 else returncode or -signal.SIGKILL


def start_step(
    argv: tuple[str, ...], request: str, said: Path, mark: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start srun in a session of its own and hand the request to its launcher."""
    with said.open("ab") as sink:
        popen = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=sink,
            env={**step_env(os.environ), **mark},
            start_new_session=True,
            close_fds=True,
        )
    assert popen.stdin is not None
    with contextlib.suppress(BrokenPipeError), popen.stdin as pipe:
        pipe.write(request.encode("ascii"))
    return popen


def encode(request: Mapping[str, object]) -> str:
    """Return a request as the launcher reads it."""
    return json.dumps(request)
