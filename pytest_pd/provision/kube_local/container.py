"""One container as a process of this machine, under the launcher of local services."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pytest_pd.provision import launcher
from pytest_pd.provision.kube_local import pod_root
from pytest_pd.provision.rundir import read_record

START_ERROR = 128
LOG_CAP_BYTES = 2**30
TTL_S, POLL_S = 5.0, 0.2
NAME = "container"
SET_UP_LOOKS, LOOK_S = 250, 0.02


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container ended: as the container runtime would say."""

    code: int
    reason: str
    message: str = ""


class Container:
    """A running container; its log is ``<folder>/log``."""

    def __init__(
        self,
        folder: Path,
        words: Sequence[str],
        env: Mapping[str, str],
        *,
        mounts: Sequence[tuple[str, str]],
        hosts: Path,
        lease: Path,
        mark: str,
        grace_s: float,
    ) -> None:
        self.folder = folder
        self.env = dict(env)
        self.log = folder / "log"
        self._told = folder / "told"
        spec = {"hosts": str(hosts), "mounts": list(mounts), "told": str(self._told)}
        python = [sys.executable, "-S", "-E", str(pod_root.__file__)]
        self._request = {
            "name": NAME,
            "mark": mark,
            "argv": [*python, json.dumps(spec), *words],
            "env": self.env,
            "env_unset": ["*"],
            "cwd": None,
            "log": str(self.log),
            "log_cap_bytes": LOG_CAP_BYTES,
            "state": str(folder),
            "lease": str(lease),
            "ttl_s": TTL_S,
            "poll_s": POLL_S,
            "grace_s": grace_s,
        }
        self._process: asyncio.subprocess.Process | None = None
        self.done = asyncio.Event()

    async def start(self) -> None:
        """Start the launcher and hand it the request; secrets go through a pipe."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in ("told", f"{NAME}.ended.json", f"{NAME}.started.json"):
            (self.folder / old).unlink(missing_ok=True)
        self.log.touch()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-S", "-E", str(launcher.__file__)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(self._request).encode("ascii"))
        self._process.stdin.close()
        for _ in range(SET_UP_LOOKS):
            if self._process.returncode is not None or self._is_set_up():
                break
            await asyncio.sleep(LOOK_S)

    def _is_set_up(self) -> bool:
        """Whether the command itself runs, among the files of its pod."""
        pid = read_record(self.folder / f"{NAME}.started.json").get("pid")
        if pid is None:
            return False
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return True
        return str(pod_root.__file__).encode() not in words

    def inside(self, words: Sequence[str]) -> list[str]:
        """Return words that run a command among the files of this container."""
        enter = shutil.which("nsenter")
        pid = read_record(self.folder / f"{NAME}.started.json").get("pid")
        if enter is None or pid is None:
            return list(words)
        user = ["--user", "--preserve-credentials"] if os.getuid() else []
        return [enter, "--target", str(pid), "--mount", *user, "--", *words]

    async def wait(self) -> Ended:
        """Wait for the end of the container and of all that it started."""
        assert self._process is not None
        await self._process.wait()
        self.done.set()
        record = read_record(self.folder / f"{NAME}.ended.json")
        code = int(record.get("exit_code", -signal.SIGKILL))
        code = code if code >= 0 else 128 - code
        if code == START_ERROR and self._told.exists():
            return Ended(code, "StartError", self._told.read_text())
        return Ended(code, "Completed" if code == 0 else "Error")

    async def stop(self, grace_s: float) -> None:
        """Ask it to end, and end it after its grace."""
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.done.wait(), grace_s)
        except TimeoutError:
            self._signal(signal.SIGUSR1)
            await self.done.wait()

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, number)
