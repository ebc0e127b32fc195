"""Locks between the processes of one user on this host; the kernel releases them."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path

from pytest_pd.errors import ProvisionError
from pytest_pd.provision.rundir import user_dir

LOOK_S = 0.05
TELL_S = 10.0
SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


@contextmanager
def host_lock(
    name: str,
    *,
    timeout_s: float | None = None,
    shared: bool = False,
    tell: Callable[[str], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Hold a named lock inside the block; gone too when its holder is killed.

    Args:
        shared: Hold it beside other sharers, never beside one that is alone.
        timeout_s: Seconds to wait for another holder; None waits for ever.
        tell: Told once, after `TELL_S`, whom this waits for.

    Raises:
        ProvisionError: another process held it all the time; says which. Or its file
            cannot be opened.
    """
    path = user_dir() / "locks" / file_name(name)
    fd = _opened(path)
    begun_s = clock()
    try:
        while not _try(fd, shared=shared):
            waited_s = clock() - begun_s
            if timeout_s is not None and waited_s > timeout_s:
                raise ProvisionError(
                    f"The lock {name!r} is held by pid {_holder(fd)} "
                    f"since more than {timeout_s:g} s.",
                    hint="wait for that run, or end it",
                    where=path,
                )
            if tell is not None and waited_s > TELL_S:
                tell(_holder(fd))
                tell = None
            sleep(LOOK_S)
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(fd)


@contextmanager
def node_locks(
    nodes: Iterable[str],
    *,
    alone: bool,
    timeout_s: float | None = None,
    tell: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Use every node inside the block: alone to measure, else beside others.

    The locks are taken in one order everywhere, so that no two wait for each
    other. Whoever waits to be alone holds the gate, so that no newcomer passes.

    Args:
        timeout_s: Seconds to wait for each lock; None waits for ever.
        tell: Told in a line whom this waits for, once it takes long.

    Raises:
        ProvisionError: another process held a node all the time; says which.
    """
    with ExitStack() as stack:
        for node in sorted(set(nodes)):
            told = tell and partial(_tell_wait, tell, node)
            with host_lock(f"gate-{node}", timeout_s=timeout_s, tell=told):
                stack.enter_context(
                    host_lock(
                        f"node-{node}",
                        shared=not alone,
                        timeout_s=timeout_s,
                        tell=told,
                    )
                )
        yield


def _tell_wait(tell: Callable[[str], None], node: str, holder: str) -> None:
    tell(
        f"waiting for pid {holder}, which uses {node} "
        "(--pd-share-nodes measures beside others)"
    )


def file_name(name: str) -> str:
    """Return a file name of its own for each lock, readable where it can be."""
    safe = "".join(letter if letter in SAFE else "_" for letter in name)[:80]
    return safe if safe == name else f"{safe}-{sha256(name.encode()).hexdigest()[:12]}"


def _holder(fd: int) -> str:
    return os.pread(fd, 32, 0).decode().strip() or "unknown"


def _opened(path: Path) -> int:
    try:
        path.parent.mkdir(exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ProvisionError(
            f"The lock {path.name!r} cannot be opened: {error.strerror or error}.",
            hint="ulimit -n says how many files may be open; or make room on the disk",
            where=path,
        ) from error


def _try(fd: int, *, shared: bool) -> bool:
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
