"""A service on an SSH host, and how it is told to end."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Mapping
from pathlib import Path

from pytest_pd.errors import InfrastructureLost, ProvisionError
from pytest_pd.provision import sweep
from pytest_pd.provision.rundir import RunDir, read_record
from pytest_pd.provision.ssh_host import RemoteHost

KILLED_S = 10.0
SIGNAL = (
    "import sys; sys.path.insert(0, {bin!r}); import launcher, os\n"
    "alive = launcher.start_time({pid}) == {start}\n"
    "{act}"
)
TELL_LAUNCHER = "os.kill({pid}, {number}) if alive else None"
TELL_SERVICE = "launcher.send(launcher.descendants({pid}), {number}) if alive else None"


class SshProcess:
    """A service on an SSH host, known by the mirrored records of its launcher.

    Attributes:
        is_stuck: It lives on although it was killed.
    """

    def __init__(
        self, name: str, log: Path, run: RunDir, host: RemoteHost, *, mark: str
    ) -> None:
        self._name = name
        self._log = log
        self._run = run
        self._host = host
        self._mark = mark
        self.is_stuck = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def host(self) -> RemoteHost:
        return self._host

    @property
    def log(self) -> Path:
        return self._log

    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal.

        Raises:
            InfrastructureLost: nothing was heard from the host for too long, or it
                sent what is no file of a run.
        """
        if self._host.refused:
            raise InfrastructureLost(
                f"{self._host.name} sent a file {self._host.refused!r}, which no run "
                "has there: it was not written, and the host is not trusted.",
                hint="look at who else may write the run's folder on that host",
                where=self._log,
            )
        ended = read_record(self._run.ended(self._name))
        if "exit_code" in ended:
            return int(ended["exit_code"])
        if self._name in self._host.gone:
            return -signal.SIGKILL
        if lost_s := self._host.lost_s():
            raise InfrastructureLost(
                f"Nothing was heard from {self._host.name} for {lost_s:.0f} s: "
                f"whether {self._name!r} lives cannot be told.",
                hint="its lease ends it there; look at the host and the network",
                where=self._log,
            )
        return None

    def identity(self) -> Mapping[str, str | int]:
        """Return host, pid, start time and boot of the service."""
        record = read_record(self._run.started(self._name))
        return {
            "ssh": self._host.name,
            "pid": int(record.get("pid", 0)),
            "start_time": int(record.get("start_time", 0)),
            "boot_id": str(record.get("boot_id", "")),
        }

    def stop(self, *, grace_s: float) -> None:
        """End the service and all it started, as far as the host can be reached.

        Raises:
            ProvisionError: it, or what it started, lives on although it was killed.
        """
        for number, seconds in ((signal.SIGTERM, grace_s), (signal.SIGUSR1, KILLED_S)):
            if not self._is_over() and seconds > 0:
                self._tell(TELL_LAUNCHER, number)
                self._host.wait_for(self._is_over, seconds)
        if not self._is_over():
            self._tell(TELL_SERVICE, signal.SIGKILL)
            self._host.wait_for(self._is_over, KILLED_S)
        self._refuse_stuck()
        was_told = "exit_code" in read_record(self._run.ended(self._name))
        if not was_told and not self._host.lost_s():
            end_marked(self._host, self._mark)  # its launcher was killed

    def _refuse_stuck(self) -> None:
        record = read_record(self._run.started(self._name))
        unknown = not record or self._host.lost_s() > 0
        self.is_stuck = not unknown and not self._is_over()
        if self.is_stuck:
            raise ProvisionError(
                f"{self._name!r} (pid {record['pid']}, launcher "
                f"{record['launcher_pid']}) on {self._host.name} cannot be ended.",
                hint="it hangs in the kernel (a dead GPU or file system); see dmesg "
                "there, then pytest-pd down",
                where=self._log,
            )

    def kill(self, signal: int) -> None:
        """Send a signal to the service and everything below it."""
        self._tell(TELL_SERVICE, signal)

    def _is_over(self) -> bool:
        """Whether its launcher has ended, or had nothing that it could start."""
        if self._name in self._host.gone:
            return True
        was_started = self._run.started(self._name).exists()
        return self._run.ended(self._name).exists() and not was_started

    def _tell(self, what: str, number: int) -> None:
        record = read_record(self._run.started(self._name))
        if not record:
            return
        pid, start = record["launcher_pid"], record["launcher_start_time"]
        code = SIGNAL.format(
            bin=f"{self._host.remote}/bin",
            pid=pid,
            start=start,
            act=what.format(pid=pid, number=int(number)),
        )
        python = self._host.site.python
        self._host.run(shlex.join([python, "-S", "-E", "-c", code]))


def end_marked(host: RemoteHost, mark: str) -> None:
    """Kill every process on a host that carries a mark.

    Args:
        mark: Of one service, or with ``/`` at its end the beginning of many.

    Raises:
        ProvisionError: some live on although they were killed, or the host has not
            the Python of the cluster file.
    """
    words = [host.site.python, "-S", "-E", "-", mark]
    source = Path(sweep.__file__).read_text()
    answer = host.run(shlex.join(words), source)
    if not answer.code:
        return
    if pids := answer.out.split():
        raise ProvisionError(
            f"{len(pids)} process(es) of {mark!r} on {host.name} cannot be ended: "
            f"pid {', '.join(pids)}.",
            hint="they hang in the kernel (a dead GPU or file system); see dmesg "
            "there, then pytest-pd down",
        )
    raise ProvisionError(
        f"{host.name}: what is left of {mark!r} cannot be told: {answer.err.strip()}",
        hint=f"is {host.site.python!r} there?",
    )
