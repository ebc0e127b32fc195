"""Carry a lease to SSH hosts: a helper process beside the keeper of the lease.

``python -m pytest_pd.provision.ssh_relay`` with one JSON object on standard input
(``site``, ``hosts`` as (index, folder) pairs, ``lease``, ``ttl_s``). It says
``ready`` when every host has the lease. A process of its own, so that what stops the
harness for a while (a held GIL, ``--pdb``, Ctrl-Z) stops no service; when the keeper
gives the lease back it is given back everywhere, and the relay ends.
"""

from __future__ import annotations

import json
import shlex
import sys
import threading
import time
from pathlib import Path

import paramiko

from pytest_pd.errors import ProvisionError
from pytest_pd.provision.launcher import Lease
from pytest_pd.provision.ssh_connect import open_connection
from pytest_pd.spec.site_ssh import SshSite

BYE = "bye"
RETRY_S = 0.5
LOOK_S = 0.2
LAST_WORD_S = 5.0
WRITE = 'while read -r x; do printf "%-20s\\n" "$x" 1<>"$0"; done'
"""Writes in place: a full disk there does not stop what has its block already."""


def read(lease: Path) -> str:
    """Return what the lease says; empty when it cannot be read."""
    try:
        return lease.read_text().strip()
    except OSError:
        return ""


class Relay:
    """The lease of one host."""

    def __init__(
        self, site: SshSite, index: int, folder: str, lease: Path, ttl_s: float
    ) -> None:
        self.site = site
        self.host = site.hosts[index]
        self.command = shlex.join(["sh", "-c", WRITE, f"{folder}/lease"])
        self.lease = lease
        self.file = Lease(str(lease), ttl_s, LOOK_S)
        self.bye_s: float | None = None
        self.sent = False
        self.ready = threading.Event()

    def run(self) -> None:
        """Send the lease on until it is over, by new connections if need be.

        A lease that does not change, or cannot be read, for its whole time to live is
        over as well: what runs there ends by itself, and nobody is left to relay for.
        """
        try:
            while not self._is_over():
                try:
                    if self._send():
                        return
                except (ProvisionError, paramiko.SSHException, OSError, EOFError):
                    time.sleep(RETRY_S)
        finally:
            self.ready.set()

    def _is_over(self) -> bool:
        """Whether there is nothing to send any more, after some seconds for the end."""
        over, now_s = self.file.over(), time.monotonic()
        if read(self.lease) != BYE:
            self.bye_s = None
            return over
        self.bye_s = now_s if self.bye_s is None else self.bye_s
        return now_s - self.bye_s > LAST_WORD_S

    def _send(self) -> bool:
        """Send every change over one connection; True once the last word is sent."""
        connection = open_connection(self.site, self.host)
        last = ""
        try:
            channel = connection.transport.open_session()
            channel.settimeout(self.site.connect_timeout_s)
            channel.exec_command(self.command)
            while not self._is_over():
                text = read(self.lease)
                if text not in ("", last):
                    channel.sendall(f"{text}\n".encode())
                    self.sent = True
                    self.ready.set()
                    last = text
                if text == BYE:
                    channel.shutdown_write()
                    channel.recv_exit_status()
                    return True
                time.sleep(LOOK_S)
            return True
        finally:
            connection.close()


def main() -> None:
    """Relay to every host that standard input names."""
    request = json.loads(sys.stdin.readline())
    site = SshSite.model_validate(request["site"])
    relays = [
        Relay(site, index, folder, Path(request["lease"]), request["ttl_s"])
        for index, folder in request["hosts"]
    ]
    threads = [threading.Thread(target=relay.run) for relay in relays]
    for thread in threads:
        thread.start()
    for relay in relays:
        relay.ready.wait()
    if all(relay.sent for relay in relays):
        print("ready", flush=True)
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
