"""One command on a host that lives no longer than the connection to it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import paramiko

from pytest_pd.errors import InfrastructureLost
from pytest_pd.provision.ssh_connect import open_connection
from pytest_pd.spec.site_ssh import SshHost, SshSite

CHUNK_BYTES = 1 << 16


class RemoteCommand:
    """A command that runs on a host, behind a terminal of its own."""

    def __init__(self, channel: paramiko.Channel, host: str, log: Path) -> None:
        self._channel = channel
        self._host = host
        self._log = log

    def wait(self, silent_s: float) -> int:
        """Copy what it prints to its log until it ends; return its exit code.

        Args:
            silent_s: How long it may print nothing.

        Raises:
            InfrastructureLost: it was silent for too long, or the host is gone.
        """
        self._channel.settimeout(silent_s)
        try:
            with self._log.open("wb") as sink:
                while data := self._channel.recv(CHUNK_BYTES):
                    sink.write(data)
        except (TimeoutError, OSError, paramiko.SSHException) as error:
            raise InfrastructureLost(
                f"{self._host} said nothing for {silent_s:g} s, or is gone.",
                hint="look whether the host is up and its ranks wait for another",
                where=self._log,
            ) from error
        return int(self._channel.recv_exit_status())


@contextmanager
def remote_command(
    site: SshSite, host: SshHost, words: Sequence[str], log: Path
) -> Iterator[RemoteCommand]:
    """Start `words` on a host; when the block ends, it is hung up on there.

    Its terminal goes with the connection, however the connection ends: sshd then
    sends SIGHUP to all that runs in it.

    Raises:
        ProvisionError: the host's key or our own is not accepted.
        InfrastructureLost: it cannot be reached.
    """
    connection = open_connection(site, host)
    try:
        channel = connection.transport.open_session(timeout=site.connect_timeout_s)
        with channel:
            channel.get_pty()
            channel.exec_command(shlex.join(words))
            yield RemoteCommand(channel, host.name or host.host, log)
    finally:
        connection.close()
