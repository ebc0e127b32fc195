"""Ports of pods on this machine: ``kubectl port-forward``, begun again when it ends."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from pytest_pd import tied
from pytest_pd.provision.kubernetes.watch import PodWatch

READY_S = 3600.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
LOOK_S = 0.2
HELD_PORT = 20129
"""Bound at 127.x.0.1 by whoever uses the addresses 127.x.y.z."""
FORWARDS = range(200, 250)
"""Second numbers of the addresses that pods are forwarded to."""


class Forward:
    """The ports of one pod at an address of this machine.

    It begins when the pod is ready: kubectl ends at the first port that refuses.

    Attributes:
        what: Pod, address here, ports.
    """

    def __init__(
        self,
        words: Sequence[str],
        watch: PodWatch,
        pod: tuple[str, str],
        address: str,
        ports: Iterable[int],
        log: Path,
    ) -> None:
        self._namespace, self._pod = pod
        self.what = (self._pod, address, tuple(ports))
        self._words = [
            *(*words, "port-forward", "-n", self._namespace, "--address", address),
            *(f"pod/{self._pod}", *(f"{port}:{port}" for port in self.what[2])),
        ]
        self._watch = watch
        self._log = log
        self._over = threading.Event()
        self._popen: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(
            target=self._run, name=f"pd-forward-{self._pod}", daemon=True
        )

    def start(self) -> None:
        """Begin to forward as soon as the pod is ready."""
        self._thread.start()

    def close(self) -> None:
        """End kubectl; the thread ends with it."""
        self._over.set()
        with self._lock:
            if self._popen is not None and self._popen.stdin is not None:
                self._popen.stdin.close()
        self._thread.join(5)

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._over.is_set():
            ready = self._watch.wait(
                self._pod, lambda state: state is not None and state.ready, LOOK_S
            )
            if not ready:
                continue
            popen = self._open()
            if popen is None:
                return
            with suppress(subprocess.TimeoutExpired):
                popen.wait(LONGEST_PAUSE_S * 2)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            if popen.poll() is None:  # it held for a while: the next end is a new one
                pause_s = FIRST_PAUSE_S
                popen.wait()
            assert popen.stdin is not None
            popen.stdin.close()
            self._over.wait(pause_s)

    def _open(self) -> subprocess.Popen[bytes] | None:
        with self._lock, self._log.open("ab") as log:
            if self._over.is_set():
                return None
            self._popen = subprocess.Popen(
                [sys.executable, "-S", "-E", tied.__file__, *self._words],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            return self._popen


def is_free(address: str, port: int) -> bool:
    """Whether a port of this machine can be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def take_block(
    blocks: Iterable[int], ports: Iterable[int] = ()
) -> tuple[int, socket.socket]:
    """Return an x for addresses 127.x.y.z, and what keeps others from taking it.

    Args:
        ports: What has to be free there.

    Raises:
        OSError: there is none.
    """
    for block in blocks:
        held = socket.socket()
        try:  # without SO_REUSEADDR: bound means that it is ours alone
            held.bind((f"127.{block}.0.1", HELD_PORT))
        except OSError:
            held.close()
            continue
        if all(is_free(f"127.{block}.1.1", port) for port in ports):
            return block, held
        held.close()
    raise OSError("every block of loopback addresses is taken")
