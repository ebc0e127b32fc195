"""The kernel's time of arrival, read together with the bytes."""

from __future__ import annotations

import socket
import struct

from pytest_pd.load.clock import NS

SO_TIMESTAMPNS = 35
"""From asm-generic/socket.h; the module `socket` does not name it."""
READ_BYTES = 1 << 14
"""Python allocates as much for each read and gives the rest back, which above some
20 KB takes 2 us more."""
CONTROL_BYTES = socket.CMSG_SPACE(16) if hasattr(socket, "CMSG_SPACE") else 0
read_timespec = struct.Struct("qq").unpack


def enable_kernel_stamps(sock: socket.socket) -> bool:
    """Ask for arrival times with every read; return whether they are given."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    except OSError:
        return False
    return hasattr(sock, "recvmsg")


def receive(sock: socket.socket) -> tuple[bytes, int]:
    """Return what a read brought and its realtime arrival in ns, 0 for unknown."""
    data, control, _, _ = sock.recvmsg(READ_BYTES, CONTROL_BYTES)
    if control:
        seconds, nanos = read_timespec(control[0][2])
        return data, seconds * NS + nanos
    return data, 0
