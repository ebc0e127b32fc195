"""End what a run has left behind, after proof that it is the run's own.

Proof is a recorded pid with its start time on this boot of this machine, or the
run's mark in the environment of a process of this user. A pid that was given to
another process since is neither, and is left alone; so is everything else.

What was started on another host or in another container that shares the folder cannot
be seen from here: there the lease tells, which stands still or was given back when
nobody uses it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_pd.errors import PdError, ProvisionError
from pytest_pd.provision import BACKENDS
from pytest_pd.provision.base import Janitor
from pytest_pd.provision.identity import Identity, marked_with
from pytest_pd.provision.launcher import BYE, Lease, send
from pytest_pd.provision.rundir import RunDir, forget, id_of, topologies_of
from pytest_pd.spec.cluster import ClusterSpec

LOOK_S = 0.05
ASKED_S = 15.0
KILLED_S = 5.0
LEASE_SLACK_S = 10.0
LEASE_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Survivor:
    """A process that is proven to belong to a run.

    Attributes:
        part: ``launcher``, ``service``, ``keeper`` or ``stray``.
    """

    name: str
    part: str
    pid: int


@dataclass(frozen=True, slots=True)
class Reaped:
    """What became of one run.

    Attributes:
        owner: Who still uses it; empty when nobody does.
        ended: What was ended.
        asked: Backends that ended what they keep of it elsewhere.
        trouble: Why it could not be ended; empty when it could.
    """

    run: Path
    run_id: str
    owner: str = ""
    ended: tuple[Survivor, ...] = ()
    asked: tuple[str, ...] = ()
    trouble: str = ""


def owner_of(run: RunDir) -> str:
    """Return who still uses a topology; empty when nobody does.

    What was started elsewhere counts as used until it is over or its lease was given
    back; whether the lease still changes is told by `abandoned`.
    """
    manifest = run.read_manifest()
    harness = Identity.read(manifest.get("harness", {}))
    keeper = Identity.read(manifest.get("keeper", {}))
    if keeper.is_alive and "kept_until_s" in manifest:
        # it goes by a clock that nobody sets: this one may have been set since
        until = time.strftime("%H:%M:%S", time.localtime(manifest["kept_until_s"]))
        return f"its keeper, until {until}"
    if harness.is_alive and not manifest.keys() & {"ended_s", "kept_until_s"}:
        return f"pid {harness.pid}"
    if harness.is_elsewhere and "ended_s" not in manifest and not _gave_back(run):
        who = "its keeper" if "kept_until_s" in manifest else f"pid {harness.pid}"
        return f"{who} on {harness.host}"
    return ""


def _gave_back(run: RunDir) -> bool:
    with suppress(OSError):
        return run.lease.read_bytes().strip() == BYE
    return False


def abandoned(
    folders: Iterable[RunDir],
    *,
    say: Callable[[str], object] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> set[RunDir]:
    """Return the topologies of other hosts whose lease nobody renews any more.

    Watches all leases at once: until each has changed, or its TTL is over.
    """
    watched = {
        each: Lease(str(each.lease), _ttl_s(each), LEASE_LOOK_S)
        for each in folders
        if Identity.read(each.read_manifest().get("harness", {})).is_elsewhere
        and owner_of(each)
    }
    if watched:
        most_s = max(lease.ttl_s for lease in watched.values())
        say(f"watching {len(watched)} lease(s) of other hosts, {most_s:g} s at most")
    first: dict[RunDir, bytes | None] = {}
    found = set()
    while watched:
        for each, lease in list(watched.items()):
            if lease.over():
                found.add(each)
            if each in found or lease.last != first.setdefault(each, lease.last):
                del watched[each]
        sleep(LEASE_LOOK_S)
    return found


def _ttl_s(run: RunDir) -> float:
    return float(run.read_manifest().get("lease_ttl_s", 0.0))


def survivors(run: RunDir) -> list[Survivor]:
    """Return every process of a topology that lives here, newest launcher first."""
    found: dict[int, Survivor] = {}
    for name, record in reversed(run.started_records().items()):
        for part, prefix in (("launcher", "launcher_"), ("service", "")):
            identity = Identity.read(record, prefix)
            if identity.is_alive:
                found[identity.pid] = Survivor(name, part, identity.pid)
    manifest = run.read_manifest()
    for pid in marked_with(mark_prefix(run)) if manifest.get("run_id") else ():
        found.setdefault(pid, Survivor("?", "stray", pid))
    keeper = Identity.read(manifest.get("keeper", {}))
    if keeper.is_alive:
        found[keeper.pid] = Survivor("keeper", "keeper", keeper.pid)
    return list(found.values())


def mark_prefix(run: RunDir) -> str:
    """Return how the marks of a topology's processes begin."""
    return f"{run.read_manifest().get('run_id')}/{run.path.name}/"


def end_topology(
    run: RunDir,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Survivor]:
    """End everything of one topology: asked first, then killed.

    Returns:
        What was ended.

    Raises:
        ProvisionError: something lives on although it was killed.
    """
    ended = survivors(run)
    asked = [s.pid for s in ended if s.part in ("launcher", "keeper")]
    for number, seconds in ((signal.SIGTERM, ASKED_S), (signal.SIGKILL, KILLED_S)):
        whom = asked if number == signal.SIGTERM else _pids(survivors(run))
        send(whom, number)
        end_s = clock() + seconds
        while (left := survivors(run)) and clock() < end_s:
            if number == signal.SIGTERM and not _asked(left):
                break
            sleep(LOOK_S)
        if not left:
            return ended
    raise ProvisionError(
        f"{len(left)} process(es) of {str(run.path)!r} cannot be ended: "
        + ", ".join(f"{s.name} (pid {s.pid})" for s in left),
        hint="they hang in the kernel (a dead GPU or file system); see dmesg",
    )


def _asked(left: Iterable[Survivor]) -> bool:
    """Whether there is anybody who still works on the end of the others."""
    return any(s.part in ("launcher", "keeper") for s in left)


def _pids(found: Iterable[Survivor]) -> list[int]:
    return [survivor.pid for survivor in found]


def end_run(run: Path, folders: Iterable[RunDir] | None = None) -> Reaped:
    """End topologies of a run, all unless some are named, whoever uses them.

    Raises:
        ProvisionError: something of it cannot be ended.
    """
    run_id = id_of(run)
    ended, asked = [], []
    for folder in topologies_of(run) if folders is None else folders:
        ended += end_topology(folder)
        clean_elsewhere(folder)
        asked += kept_by(folder)
        if _is_left(folder):
            ended_s = folder.read_manifest().get("ended_s", time.time())
            folder.write_manifest(ended_s=ended_s, not_ended="")
    forget(run_id)
    return Reaped(run, run_id, ended=tuple(ended), asked=tuple(asked))


def kept_by(run: RunDir) -> list[str]:
    """Return the backend that keeps things of a topology elsewhere, if it does."""
    name = str(run.read_manifest().get("backend", "local"))
    return [name] if isinstance(BACKENDS.get(name)(), Janitor) else []


def clean_elsewhere(run: RunDir) -> None:
    """Let a backend that keeps things elsewhere (jobs, pods) end those of a run.

    Raises:
        ProvisionError: the backend cannot, or the manifest does not say on what
            cluster they are.
    """
    manifest = run.read_manifest()
    backend = BACKENDS.get(str(manifest.get("backend", "local")))()
    if not isinstance(backend, Janitor):
        return
    try:
        cluster = ClusterSpec.model_validate(manifest["cluster"])
        run_id, ttl_s = str(manifest["run_id"]), float(manifest["lease_ttl_s"])
    except (KeyError, ValueError) as error:
        raise ProvisionError(
            f"The manifest of {str(run.path)!r} is none that this version can read.",
            hint=f"end its jobs, pods or remote processes on {manifest['backend']} "
            "yourself, or use the version that started it",
            where=run.manifest,
        ) from error
    backend.clean(cluster, run.context(run_id, ttl_s))


def reap(
    runs: Iterable[Path],
    *,
    dry_run: bool = False,
    say: Callable[[str], object] = lambda _: None,
) -> Iterator[Reaped]:
    """End what is left of runs that nobody uses any more; leave the others alone.

    Args:
        dry_run: Tell what would be ended, and end nothing.

    A run that cannot be ended is told with its trouble, and stops no other.
    """
    known = [(run, topologies_of(run)) for run in runs]
    lost = abandoned((each for _, folders in known for each in folders), say=say)
    for run, folders in known:
        try:
            found = _reaped(run, folders, lost, dry_run=dry_run)
        except (PdError, OSError) as error:
            found = Reaped(run, id_of(run), trouble=str(error))
        yield found


def _reaped(
    run: Path, folders: Sequence[RunDir], lost: Set[RunDir], *, dry_run: bool
) -> Reaped:
    owners = (owner_of(each) for each in folders if each not in lost)
    if owner := next(filter(None, owners), ""):
        return Reaped(run, id_of(run), owner)
    left = [each for each in folders if _is_left(each) or survivors(each)]
    if not dry_run:
        return end_run(run, left)
    ended = tuple(survivor for each in left for survivor in survivors(each))
    asked = tuple(name for each in left for name in kept_by(each))
    return Reaped(run, id_of(run), ended=ended, asked=asked)


def _is_left(run: RunDir) -> bool:
    """Whether a topology was never ended, or something of it elsewhere could not be."""
    manifest = run.read_manifest()
    return "ended_s" not in manifest or bool(manifest.get("not_ended"))


def wait_lease_over(
    run_dir: Path,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return when nothing of an earlier deployment in `run_dir` lives any more.

    For the worker that follows a crashed one: it may bring the topology up again
    only after the old lease has proved to be over. Nothing is to be waited for
    where there was no deployment.

    Raises:
        ProvisionError: its owner lives, or a keeper keeps it up, or it did not end
            although it was killed.
    """
    run = RunDir(run_dir)
    manifest = run.read_manifest()
    _refuse_owned(run, manifest)
    end_s = clock() + float(manifest.get("lease_ttl_s", 0.0)) + LEASE_SLACK_S
    while survivors(run):
        if clock() > end_s:
            end_topology(run)
            return
        sleep(LOOK_S)


def _refuse_owned(run: RunDir, manifest: Mapping[str, Any]) -> None:
    harness = Identity.read(manifest.get("harness", {}))
    keeper = Identity.read(manifest.get("keeper", {}))
    where = str(run.path)
    if keeper.is_alive and "kept_until_s" in manifest and (owner := owner_of(run)):
        raise ProvisionError(
            f"The topology in {where!r} is up: {owner}.",
            hint=f"pytest-pd down {manifest.get('run_id')}, or another --run-dir",
        )
    mine = harness.pid == os.getpid() or "ended_s" in manifest
    if harness.is_alive and not mine:
        raise ProvisionError(
            f"The topology in {where!r} is up: pid {harness.pid} owns it.",
            hint="wait for it, or end that process",
        )


def is_used(run: Path) -> bool:
    """Whether anybody uses a run, or anything of it lives, or nobody can tell."""
    try:
        for each in topologies_of(run):
            each.manifest.read_bytes()  # else empty, as if nobody used it
            stuck = each.read_manifest().get("not_ended")
            if owner_of(each) or stuck or survivors(each):
                return True
    except OSError:
        return True
    return False
