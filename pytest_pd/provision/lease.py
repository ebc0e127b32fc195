"""The harness's end of a lease: a helper process renews it, we only hold a pipe."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pytest_pd.errors import InfrastructureLost, ProvisionError
from pytest_pd.provision import lease_keeper
from pytest_pd.provision.identity import Identity

RENEWALS_PER_TTL = 5
ANSWER_S = 10.0


class LeaseHolder:
    """A running keeper. Only the process that made it can end it.

    Its pipe is the proof of life: it is closed by the kernel however the harness
    ends, and it is inherited by no program that the harness starts. A fork which
    inherits it changes nothing, for the keeper looks at its parent as well.
    """

    def __init__(self, path: Path, ttl_s: float, fds: Sequence[int] = ()) -> None:
        self.path = path
        self._owner = os.getpid()
        self._kept = False
        try:
            lease_keeper.write_lease(str(path), "0".zfill(lease_keeper.WIDTH))
        except OSError as error:
            raise ProvisionError(
                f"Lease {str(path)!r} cannot be written: {error.strerror}.",
                hint="choose another --run-dir",
            ) from error
        self._popen = subprocess.Popen(
            [
                *(sys.executable, "-S", "-E", lease_keeper.__file__),
                *(str(path), str(ttl_s / RENEWALS_PER_TTL), str(self._owner)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=fds,
        )
        self.identity = Identity.of(self._popen.pid)

    def check(self) -> None:
        """Raise `InfrastructureLost` if nobody renews the lease any more."""
        if self._popen.poll() is not None:
            raise InfrastructureLost(
                "The keeper of the lease was ended by somebody: "
                "every service will stop within its TTL.",
                where=self.path,
            )

    @property
    def keeper_code(self) -> int | None:
        """Exit code of the keeper: 0 when it gave the lease back by itself."""
        return self._popen.poll()

    def keep(self, seconds: float) -> None:
        """Let the keeper go on after this process, for so many seconds.

        Raises:
            InfrastructureLost: the keeper does not answer.
        """
        self.check()
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        os.write(self._popen.stdin.fileno(), f"keep {seconds}\n".encode())
        if not select.select([self._popen.stdout], [], [], ANSWER_S)[0]:
            raise InfrastructureLost("The keeper of the lease does not answer.")
        self._kept = True

    def release(self) -> None:
        """Give the lease back and wait until the keeper is gone, unless kept."""
        if os.getpid() != self._owner:
            return
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        if self._kept:
            disown(self._popen)
            return
        try:
            self._popen.wait(ANSWER_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        with suppress(OSError):
            lease_keeper.write_lease(str(self.path), "bye")


def disown(popen: subprocess.Popen[bytes]) -> None:
    """Let a child outlive us without the warning that it still runs."""
    if popen.poll() is None:
        popen.returncode = 0


@contextmanager
def held(path: Path, ttl_s: float, fds: Sequence[int] = ()) -> Iterator[LeaseHolder]:
    """Hold a lease inside the block; given back on every way out.

    Args:
        fds: Locks that last as long as the lease is renewed, even when it is kept.
    """
    holder = LeaseHolder(path, ttl_s, fds)
    try:
        yield holder
    finally:
        holder.release()
