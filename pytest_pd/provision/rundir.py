"""Every path of a run. Nobody else joins strings."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pytest_pd.errors import ProvisionError
from pytest_pd.files import read_object
from pytest_pd.provision.base import RunContext
from pytest_pd.provision.launcher import write_json

ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
STAMP = "%Y%m%dT%H%M%SZ"
SECONDS = ("created_s", "started_s", "ended_s", "kept_until_s", "lease_ttl_s")
GROUPS = ("harness", "keeper", "timings")
MOST_S = 1e12
"""Longer and later than anything that a run writes down."""


def make_run_id() -> str:
    """Return a name for one run: eight characters that are hard to misread."""
    return "".join(secrets.choice(ALPHABET) for _ in range(8))


def run_path(root: Path, run_id: str, now: datetime | None = None) -> Path:
    """Return ``<root>/<utc>-<run id>``; makes nothing."""
    stamp = (now or datetime.now(UTC)).astimezone(UTC).strftime(STAMP)
    return root / f"{stamp}-{run_id}"


def user_dir() -> Path:
    """Return this user's folder for locks and for where the runs are.

    Raises:
        ProvisionError: it cannot be made, or somebody else owns it.
    """
    named = os.environ.get("XDG_RUNTIME_DIR")
    base = Path(named) if named and Path(named).is_dir() else tempfile.gettempdir()
    path = Path(base) / f"pytest-pd-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        owner = path.lstat().st_uid
    except OSError as error:
        raise unwritable(path, error) from error
    if owner != os.getuid():
        raise ProvisionError(
            f"{str(path)!r} belongs to user {owner}, not to you ({os.getuid()}).",
            hint="set XDG_RUNTIME_DIR to a folder of your own",
        )
    return path


def unwritable(path: Path, error: OSError) -> ProvisionError:
    """Return the error for a folder that cannot hold a run."""
    return ProvisionError(
        f"Run directory {str(path)!r} cannot be written: {error.strerror or error}.",
        hint="choose another with --run-dir, or make room",
    )


@dataclass(frozen=True, slots=True)
class RunDir:
    """The folder of one topology inside a run, as the harness sees it."""

    path: Path

    @property
    def lease(self) -> Path:
        return self.path / "lease"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def state(self) -> Path:
        return self.path / "state"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def plan_lock(self) -> Path:
        return self.path / "plan.lock.yaml"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def metrics(self, service: str, when: str) -> Path:
        """Return a service's metrics page, ``when`` it was ``ready`` or at the end."""
        return self.path / "metrics" / f"{service}-{when}.txt"

    def started(self, service: str) -> Path:
        return self.state / f"{service}.started.json"

    def ended(self, service: str) -> Path:
        return self.state / f"{service}.ended.json"

    def create(self) -> None:
        """Make the folders.

        Raises:
            ProvisionError: they cannot be written.
        """
        try:
            for folder in (self.path, self.state, self.logs):
                folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path) as probe:
                probe.write(b"x")
        except OSError as error:
            raise unwritable(self.path, error) from error

    def write_manifest(self, **facts: object) -> None:
        """Add facts to the manifest; a reader sees the old one or the new one."""
        write_json(str(self.manifest), {**self.read_manifest(), **facts})

    def read_manifest(self) -> dict[str, Any]:
        """Return the manifest; empty when there is none or it cannot be read."""
        return read_record(self.manifest)

    def started_records(self) -> dict[str, Mapping[str, Any]]:
        """Return what was started, by service name, in the order of starting."""
        found = {
            path.name.removesuffix(".started.json"): read_record(path)
            for path in self.state.glob("*.started.json")
        }
        ordered = sorted(found.items(), key=lambda item: item[1].get("started_s", 0.0))
        return {name: record for name, record in ordered if record}

    def clear_records(self) -> None:
        """Forget the services of an earlier deployment in the same folder."""
        for record in self.state.glob("*.json"):
            record.unlink(missing_ok=True)

    def context(self, run_id: str, lease_ttl_s: float) -> RunContext:
        return RunContext(run_id, self.path, self.lease, lease_ttl_s)


def read_record(path: Path) -> dict[str, Any]:
    """Return a JSON object; empty when the file is absent or no such thing.

    Fields that a run cannot have written are left out, as if they were absent.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    found = record if isinstance(record, dict) else {}
    return {name: value for name, value in found.items() if _fits(name, value)}


def _fits(name: str, value: object) -> bool:
    if name in SECONDS:
        return isinstance(value, int | float) and abs(value) < MOST_S
    if name in GROUPS:
        return isinstance(value, dict)
    if name == "run_id":  # names a file of the index and marks processes
        return isinstance(value, str) and bool(re.fullmatch(r"[\w-]+", value))
    return True


def remember(run_id: str, path: Path) -> None:
    """Note where a run lies, so that its id alone finds it again."""
    index = user_dir() / "runs"
    index.mkdir(exist_ok=True)
    (index / run_id).write_text(str(path.resolve()))


def forget(run_id: str) -> None:
    """Undo `remember`."""
    (user_dir() / "runs" / run_id).unlink(missing_ok=True)


def remembered() -> Iterator[tuple[str, Path]]:
    """Yield (run id, path of the run) of every run that was not forgotten.

    Entries that are no path are left out.
    """
    index = user_dir() / "runs"
    for entry in sorted(index.iterdir()) if index.is_dir() else ():
        with suppress(OSError, ValueError):
            path = Path(entry.read_text())
            if path.is_absolute():
                yield entry.name, path


def topologies_of(run: Path) -> list[RunDir]:
    """Return the topology folders of a run that have a manifest."""
    return [RunDir(path.parent) for path in sorted(run.glob("*/manifest.json"))]


def runs_below(root: Path) -> list[Path]:
    """Return every run below `root`, oldest first; a link there is none."""
    return [path for path in _by_age(root) if topologies_of(path)]


def measured_below(root: Path) -> list[Path]:
    """Return every run below `root` that is over and had no topology, oldest first."""
    return [
        path for path in _by_age(root) if not topologies_of(path) and _is_told(path)
    ]


def _is_told(run: Path) -> bool:
    """Whether pytest wrote a verdict, for a run of this name, when it was over."""
    verdict = read_object(run / "verdict.json")
    return bool(verdict.get("run_id") == run.name.rpartition("-")[2])


def _by_age(root: Path) -> list[Path]:
    own = [path for path in root.resolve().glob("*") if not path.is_symlink()]
    return sorted(own, key=lambda path: path.stat().st_mtime)


def find_runs(*, root: Path) -> list[Path]:
    """Return every run below `root` and every one remembered, by name."""
    found = set(runs_below(root))
    found |= {path for _, path in remembered() if topologies_of(path)}
    return sorted(found, key=lambda path: path.name)


def find_run(run_id: str, *, root: Path) -> Path:
    """Return the one run whose id begins with `run_id`.

    Raises:
        ProvisionError: there is none, or more than one; lists what there is.
    """
    runs = find_runs(root=root)
    hits = [run for run in runs if id_of(run).startswith(run_id)]
    if len(hits) == 1:
        return hits[0]
    known = ", ".join(id_of(run) for run in runs[-10:]) or "none"
    number = "no run" if not hits else f"{len(hits)} runs"
    raise ProvisionError(
        f"There is {number} whose id begins with {run_id!r} below {str(root)!r}.",
        hint=f"known runs: {known}",
    )


def id_of(run: Path) -> str:
    """Return the run id that the manifests of a run hold."""
    for folder in topologies_of(run):
        if name := folder.read_manifest().get("run_id"):
            return str(name)
    return run.name.rpartition("-")[2]


def prune(runs: list[Path], *, keep: int) -> dict[Path, str]:
    """Remove all but the newest `keep` runs; the caller leaves out living ones.

    Returns:
        Old run to why it is still there; empty when it is gone.
    """
    return {run: _removed(run) for run in runs[: max(0, len(runs) - keep)]}


def _removed(run: Path) -> str:
    try:
        shutil.rmtree(run)
    except OSError as error:
        shutil.rmtree(run, ignore_errors=True)  # what was behind the first obstacle
        if os.path.lexists(run):
            return f"{error.filename or run}: {error.strerror or error}"
    return ""
