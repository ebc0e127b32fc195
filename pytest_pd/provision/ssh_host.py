"""One SSH host of a deployment: commands on it, and its files mirrored to here."""

from __future__ import annotations

import base64
import contextlib
import json
import shlex
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import fabric
import paramiko

from pytest_pd.errors import InfrastructureLost, ProvisionError
from pytest_pd.provision import launcher, node_facts, ssh_mirror
from pytest_pd.provision.masking import Masker
from pytest_pd.provision.ssh_connect import open_connection
from pytest_pd.spec.site_ssh import SshHost, SshSite

SILENT_S = 20.0
RETRY_S = 1.0
COMMAND_S = 60.0
PROGRAMS = (launcher, node_facts, ssh_mirror)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a remote command did; `code` is -1 for a signal or a lost channel."""

    code: int
    out: str
    err: str


class RemoteHost:
    """A connection to one machine, our folder there, and a copy of it here.

    A thread reads what `ssh_mirror` sends: logs and records then lie in the local run
    directory as if both machines shared it. A connection that breaks is opened
    again; how long it has been silent is what tells it from a service that ended.

    Attributes:
        gone: Services whose launcher has ended.
        secrets: What no log here may hold; the launcher masks a moment too late.
        refused: The first file that it sent and a run has not; empty while all is well.
    """

    def __init__(self, site: SshSite, host: SshHost, remote: str, local: Path) -> None:
        self.site = site
        self.host = host
        self.remote = remote
        self.local = local
        self.gone: set[str] = set()
        self.secrets: set[str] = set()
        self.refused = ""
        self._maskers: dict[str, Masker] = {}
        self._connection: fabric.Connection | None = None
        self._heard_s = time.monotonic()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def name(self) -> str:
        return self.host.name or self.host.host

    @property
    def address(self) -> str:
        """What services there listen on."""
        if self.host.address:
            return self.host.address
        return str(self.connection.host)

    @property
    def connection(self) -> fabric.Connection:
        """The open connection; opened again when it broke."""
        with self._lock:
            if self._closing.is_set():
                raise InfrastructureLost(f"The connection to {self.name} is closed.")
            if self._connection is None or not self._connection.is_connected:
                self._connection = open_connection(self.site, self.host)
            return self._connection

    def lost_s(self) -> float:
        """Return seconds since the host said anything, 0 while it talks."""
        silent_s = time.monotonic() - self._heard_s
        return silent_s if silent_s > SILENT_S else 0.0

    def run(self, command: str, stdin: str = "") -> Answer:
        """Run a shell command there and wait for its end.

        Raises:
            InfrastructureLost: the connection broke meanwhile.
        """
        try:
            channel = self._open(command, stdin)
            return self._collect(channel)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise InfrastructureLost(
                f"The connection to {self.name} broke: {error}.",
                hint="what runs there ends with its lease",
            ) from error

    def _open(self, command: str, stdin: str) -> paramiko.Channel:
        transport = self.connection.transport
        channel: paramiko.Channel = transport.open_session(timeout=COMMAND_S)
        channel.settimeout(COMMAND_S)
        channel.exec_command(command)
        channel.sendall(stdin.encode())
        channel.shutdown_write()
        return channel

    def _collect(self, channel: paramiko.Channel) -> Answer:
        with channel:
            out = channel.makefile("rb").read().decode(errors="replace")
            err = channel.makefile_stderr("rb").read().decode(errors="replace")
            return Answer(channel.recv_exit_status(), out, err)

    def checked(self, command: str, stdin: str = "") -> str:
        """Run a command that must succeed, and return what it printed.

        Raises:
            ProvisionError: it failed; with the last line it said.
        """
        answer = self.run(command, stdin)
        if answer.code:
            said = (answer.err.strip() or answer.out.strip()).splitlines()
            raise ProvisionError(
                f"{self.name}: {command.split()[0]!r} failed with code "
                f"{answer.code}: {said[-1] if said else 'it said nothing'}.",
                hint=f"is {self.site.python!r} there, and may you write {self.remote}?",
            )
        return answer.out

    def prepare(self) -> None:
        """Make the run directory, put our programs there, begin to mirror."""
        folder = shlex.quote(self.remote)
        self.checked(f"umask 077; mkdir -p {folder}/state {folder}/logs")
        for program in PROGRAMS:
            source = Path(str(program.__file__))
            self.write(f"{self.remote}/bin/{source.name}", source.read_text())
        self._heard_s = time.monotonic()
        self._thread = threading.Thread(
            target=self._mirror, name=f"pd-mirror-{self.name}", daemon=True
        )
        self._thread.start()

    def write(self, path: str, text: str) -> None:
        """Write a file there, with the folders that it needs."""
        folder = shlex.quote(path.rpartition("/")[0])
        self.checked(f"mkdir -p {folder} && cat > {shlex.quote(path)}", text)

    def python(self, program: str, *words: str) -> str:
        """Return the command line that runs one of our programs there."""
        path = f"{self.remote}/bin/{program}"
        return shlex.join([self.site.python, "-S", "-E", path, *words])

    def _mirror(self) -> None:
        """Copy what the host sends until closed; start again when it breaks off."""
        while not self._closing.is_set():
            try:
                channel = self._open(self.python("ssh_mirror.py", self.remote), "")
                channel.settimeout(SILENT_S)
                for line in channel.makefile("r"):
                    self._heard_s = time.monotonic()
                    self._take(line)
            except (ProvisionError, paramiko.SSHException, OSError, EOFError):
                pass
            self._closing.wait(RETRY_S)

    def _take(self, line: str) -> None:
        """Do what a line of the host says; one that says nothing is left out."""
        with contextlib.suppress(ValueError, TypeError, KeyError):
            item = json.loads(line)
            if "gone" in item:
                self.gone.add(item["gone"])
            elif "file" in item:
                data = base64.b64decode(item["data"])
                self._write(item["file"], item["offset"], data)

    def _write(self, name: str, offset: int, data: bytes) -> None:
        path = self.local / name
        if not is_of_run(name) or not is_below(path, self.local):
            self.refused = self.refused or name
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.startswith("state/"):
            partial = path.with_suffix(".partial")
            partial.write_bytes(data)
            partial.replace(path)  # a reader sees a whole record
            return
        if offset == 0 or name not in self._maskers:
            self._maskers[name] = Masker(self.secrets)
        masker = self._maskers[name]
        with path.open("r+b" if path.exists() else "wb") as file:
            file.seek(offset - masker.held)
            file.write(masker.feed(data))
            file.truncate()

    def _write_held(self) -> None:
        """Write what was held back of logs: nothing more comes."""
        for name, masker in self._maskers.items():
            if held := masker.flush():
                with (self.local / name).open("ab") as file:
                    file.write(held)

    def wait_for(self, done: Callable[[], bool], seconds: float) -> bool:
        """Look until `done` or until the time is over; returns whether it was."""
        end_s = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end_s:
                return False
            time.sleep(0.02)
        return True

    def close(self, *, remove: str | None) -> None:
        """End the mirror and the connection; `remove` a run's folder there before."""
        if remove and self._connection is not None and not self.lost_s():
            with contextlib.suppress(ProvisionError):
                parent = shlex.quote(remove.rpartition("/")[0])
                # other topologies of the run may be there still
                self.run(f"rm -rf {shlex.quote(remove)}; rmdir {parent} 2>/dev/null")
        self._closing.set()
        with self._lock:
            if self._connection is not None:
                self._connection.close()
        if self._thread is not None:
            self._thread.join(SILENT_S)
        self._write_held()


def is_of_run(name: str) -> bool:
    """Tell whether a run has a file of that name on a host: a record or a log."""
    folder, *rest = PurePosixPath(name).parts or ("",)
    if folder == "state":
        return len(rest) == 1 and name.endswith(".json")
    return folder == "logs" and bool(rest) and ".." not in rest


def is_below(path: Path, folder: Path) -> bool:
    """Tell whether a path lies in a folder once links are followed."""
    return path.resolve().is_relative_to(folder.resolve())
