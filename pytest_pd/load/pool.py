"""Connections to one target: opened beforehand, used again, dropped in time."""

from __future__ import annotations

import select
import socket
import ssl
import time
from contextlib import suppress

from pytest_pd.errors import InfrastructureLost
from pytest_pd.load.clock import NS
from pytest_pd.load.connection import READABLE, WRITABLE, Connection
from pytest_pd.load.target import Target

MAX_IDLE_NS = 4 * NS
"""Common servers close a connection that was idle for 5 s."""
PROBE_S = 2.0
"""An address of several that takes no connection within this is passed over."""


class ConnectionPool:
    """The connections of one epoll instance.

    Args:
        target: Where to.
        poll: Every connection is registered here.

    Raises:
        InfrastructureLost: the host name does not resolve.
    """

    def __init__(self, target: Target, poll: select.epoll) -> None:
        self._address = resolve(target)
        self._tls = target.tls()
        self._hostname = target.address.host
        self._poll = poll
        self._idle: list[tuple[int, Connection]] = []
        self.by_fd: dict[int, Connection] = {}
        self.opened = 0

    def open(self, count: int, *, timeout_s: float) -> None:
        """Connect until `count` are idle, or time is up; failures are left out."""
        deadline = time.monotonic_ns() + int(timeout_s * NS)
        waiting: dict[int, Connection] = {}
        for _ in range(count - len(self._idle)):
            with suppress(OSError):
                connection = self.connect()
                waiting[connection.fd] = connection
        while waiting and time.monotonic_ns() < deadline:
            for fd, _ in self._poll.poll(0.05):
                if (opening := waiting.get(fd)) is None:
                    continue
                try:
                    if self.advance(opening):
                        self.keep(opening)
                        del waiting[fd]
                except (OSError, ssl.SSLError):
                    self.drop(waiting.pop(fd))
        for connection in waiting.values():
            self.drop(connection)

    def connect(self) -> Connection:
        """Begin a connection.

        Raises:
            OSError: it is refused at once, or no further file may be open.
        """
        connection = Connection(
            self._address, tls=self._tls, server_hostname=self._hostname
        )
        connection.interest = READABLE | WRITABLE
        try:
            connection.start()
            self._poll.register(connection.fd, connection.interest)
        except OSError:
            connection.close()
            raise
        self.opened += 1
        self.by_fd[connection.fd] = connection
        return connection

    def advance(self, connection: Connection) -> bool:
        """Go on connecting; return whether the connection can be used.

        Raises:
            OSError: the connection or its handshake failed.
        """
        is_done = connection.advance()
        self.watch(connection)
        return is_done

    def reusable(self) -> Connection | None:
        """Take the connection that was idle for the shortest time, if one is left."""
        now = time.monotonic_ns()
        while self._idle:
            since, connection = self._idle.pop()
            if self.by_fd.get(connection.fd) is not connection:
                continue  # the peer closed it meanwhile
            if now - since < MAX_IDLE_NS:
                return connection
            self.drop(connection)
        return None

    def keep(self, connection: Connection) -> None:
        """Have `connection` ready for another request."""
        self._idle.append((time.monotonic_ns(), connection))

    def distrust(self) -> None:
        """Use none of the idle connections again: one as old as they has died."""
        for _, connection in self._idle:
            self.drop(connection)
        self._idle.clear()

    def watch(self, connection: Connection) -> None:
        """Ask for writability exactly as long as something waits for it."""
        wanted = READABLE
        if connection.has_output or not connection.is_connected:
            wanted |= WRITABLE
        if wanted != connection.interest and self._holds(connection):
            connection.interest = wanted
            self._poll.modify(connection.fd, wanted)

    def drop(self, connection: Connection) -> None:
        """Close `connection`."""
        if self._holds(connection):
            del self.by_fd[connection.fd]
            self._poll.unregister(connection.fd)
        connection.exchange = None
        connection.close()

    def close(self) -> None:
        """Close every connection."""
        for connection in list(self.by_fd.values()):
            self.drop(connection)

    def _holds(self, connection: Connection) -> bool:
        # the number of a closed descriptor may by now be another connection's
        return self.by_fd.get(connection.fd) is connection


Address = tuple[int, int, int, tuple[str, int]]
"""Family, type, protocol and address, as `socket.getaddrinfo` gives them."""


def resolve(target: Target) -> Address:
    """Return the address of the target.

    Raises:
        InfrastructureLost: the host name does not resolve.
    """
    try:
        return resolve_host(target.address.host, target.address.port)
    except OSError as error:
        raise InfrastructureLost(
            f"{target.url} cannot be reached: {error}.", hint="check the host name"
        ) from error


def resolve_host(host: str, port: int) -> Address:
    """Return the first address of `host` that takes connections, else its first.

    Raises:
        OSError: the name does not resolve.
    """
    addresses: list[Address] = [
        (family, kind, proto, (str(peer[0]), int(peer[1])))
        for family, kind, proto, _, peer in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )
    ]
    if len(addresses) == 1:
        return addresses[0]
    return next(filter(_takes_connections, addresses), addresses[0])


def _takes_connections(address: Address) -> bool:
    family, kind, proto, peer = address
    try:
        with socket.socket(family, kind, proto) as probe:
            probe.settimeout(PROBE_S)
            probe.connect(peer)
    except OSError:
        return False
    return True
