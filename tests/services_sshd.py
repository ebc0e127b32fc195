"""Real sshd hosts on this machine: each its own loopback address and host key."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pytest_pd.spec.site_ssh import SshHost, SshSite

INSTALL = "apt-get install -y openssh-server"
MOST_SOCKETS = 16
"""OpenSSH listens on at most so many addresses per daemon."""

CONF = """\
{listen}
Port {port}
HostKey {key}
PidFile none
StrictModes no
AuthorizedKeysFile {authorized}
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
PrintMotd no
UseDNS no
MaxStartups 200:30:400
MaxSessions 200
SetEnv SHLVL=3
"""


def find(tool: str) -> str | None:
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin:/sbin"))
    return shutil.which(tool, path=path)


def missing() -> str:
    """Return why no sshd can run here, or an empty string."""
    absent = [tool for tool in ("sshd", "ssh-keygen") if find(tool) is None]
    return f"{', '.join(absent)} not found: {INSTALL}" if absent else ""


def free_block(port: int) -> int:
    """Return an x for which nobody listens on 127.x.2.1."""
    for block in range(20, 99):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((f"127.{block}.2.1", port))
            return block
    raise AssertionError("every loopback block from 127.20 to 127.98 is taken")


@dataclass
class SshdHosts:
    """Running hosts; `addresses` in the order of the inventory."""

    root: Path
    count: int
    per_daemon: int = 1
    port: int = 2222
    block: int = 0
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def addresses(self) -> list[str]:
        return [f"127.{self.block}.2.{number}" for number in range(1, self.count + 1)]

    @property
    def known_hosts(self) -> Path:
        return self.root / "known_hosts"

    @property
    def client_key(self) -> Path:
        return self.root / "id"

    def site(self, **options: object) -> SshSite:
        """Return the ``ssh:`` section that reaches these hosts."""
        hosts = tuple(
            SshHost(host=address, port=self.port, user=getpass.getuser())
            for address in self.addresses
        )
        return SshSite(
            hosts=hosts,
            config_file=str(self.root / "config"),
            known_hosts=(str(self.known_hosts),),
            identity_files=(str(self.client_key),),
            **options,  # type: ignore[arg-type]
        )

    def start(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        self.block = free_block(self.port)
        (self.root / "config").write_text("")
        self._make_key(self.client_key)
        shutil.copyfile(f"{self.client_key}.pub", self.root / "authorized_keys")
        known = []
        groups = range(0, self.count, self.per_daemon)
        for number, first in enumerate(groups):
            mine = self.addresses[first : first + self.per_daemon]
            known += self.start_daemon(number, mine)
        self.known_hosts.write_text("".join(known))
        for address in self.addresses:
            self._await(address)
        self._assert_loopback_only()

    def start_daemon(self, number: int, addresses: list[str]) -> list[str]:
        """Start one sshd and return its lines of known_hosts."""
        key = self.root / f"host-{number}"
        if not key.exists():
            self._make_key(key)
        assert all(address.startswith("127.") for address in addresses)
        conf = self.root / f"sshd-{number}.conf"
        conf.write_text(
            CONF.format(
                listen="\n".join(f"ListenAddress {a}" for a in addresses),
                port=self.port,
                key=key,
                authorized=self.root / "authorized_keys",
            )
        )
        sshd = find("sshd")
        assert sshd is not None
        words = [sshd, "-D", "-f", str(conf), "-E", str(self.root / f"{number}.log")]
        self.daemons.append(
            subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
        public = " ".join(Path(f"{key}.pub").read_text().split()[:2])
        return [f"[{address}]:{self.port} {public}\n" for address in addresses]

    def kill(self, number: int) -> None:
        """SIGKILL one daemon and every connection that it serves."""
        daemon = self.daemons[number]
        for child in children_of(daemon.pid):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        daemon.kill()
        daemon.wait()

    def stop(self) -> None:
        for daemon in self.daemons:
            daemon.terminate()
        for daemon in self.daemons:
            daemon.wait(20)

    def _make_key(self, path: Path) -> None:
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True
        )

    def _await(self, address: str) -> None:
        end_s = time.monotonic() + 30
        while True:
            with suppress(OSError):
                socket.create_connection((address, self.port), 5).close()
                return
            assert time.monotonic() < end_s, f"no sshd on {address}"
            time.sleep(0.02)

    def _assert_loopback_only(self) -> None:
        lines = subprocess.run(
            ["ss", "-Hltnp"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        pids = {f"pid={daemon.pid}," for daemon in self.daemons}
        ours = [line for line in lines if any(pid in line for pid in pids)]
        assert len(ours) == self.count
        assert all(line.split()[3].startswith("127.") for line in ours), ours


def children_of(pid: int) -> list[int]:
    """Return the children of one process."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


@contextmanager
def sshd_hosts(root: Path, count: int, **options: int) -> Iterator[SshdHosts]:
    """Yield running hosts and take every part of them down again."""
    hosts = SshdHosts(root, count, **options)
    try:
        hosts.start()
        yield hosts
    finally:
        hosts.stop()
