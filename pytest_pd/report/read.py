"""Read a run directory, finished or killed, into plain data. I/O at the edge."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_pd.errors import MeasurementError
from pytest_pd.measure.percentile import summary
from pytest_pd.report import shape
from pytest_pd.report.outcome import BAD, OUTCOMES_FILE, TestOutcome, rank, settled
from pytest_pd.report.redact import redact, secrets_in
from pytest_pd.report.shape import fitted

ENTRIES_FILE = "entries.jsonl"
VERDICT_FILE = "verdict.json"
DAMAGED = (AttributeError, LookupError, OverflowError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Entry:
    """One metric of one test, with its samples.

    Attributes:
        fullname: ``pd::<suite>::<test>[<params>]::<metric>``.
        samples: Shape (n,), n >= 1, in `unit`; bigger is worse.
        outcome: Of the test that recorded it.
        info: What was stored beside the samples.
    """

    fullname: str
    metric: str
    samples: tuple[float, ...] = field(repr=False)
    outcome: str = "passed"
    params: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def unit(self) -> str:
        return str(self.info.get("unit", "s"))

    @property
    def topology(self) -> str:
        return str(self.info.get("topology", self.params.get("topology", "")))

    @property
    def mode(self) -> str:
        return str(self.info.get("mode", "real"))

    @property
    def test(self) -> str:
        return str(self.params.get("test", self.fullname.split("[")[0]))

    @property
    def point(self) -> str:
        """Workload and label, ``local_sweep:c4``; empty for other tests."""
        return str(self.params.get("point", ""))

    @property
    def workload(self) -> str:
        return self.point.partition(":")[0]

    @property
    def load(self) -> Mapping[str, Any]:
        found = self.info.get("load")
        return found if isinstance(found, Mapping) else {}

    @property
    def concurrency(self) -> float | None:
        """Streams of a closed loop; None for an open one."""
        found = self.load.get("concurrency")
        is_closed = self.load.get("arrivals", "closed") == "closed"
        return float(found) if found and is_closed else None

    @property
    def is_valid(self) -> bool:
        """True when the test passed and the instrument vouches for the figure."""
        return self.outcome == "passed" and bool(self.info.get("valid", True))

    def statistics(self) -> dict[str, float]:
        """Return count, mean, extremes and percentiles, in `unit`."""
        kept = self.info.get("percentiles_s")
        found = kept if isinstance(kept, Mapping) else summary(self.samples)
        return {k: float(v) for k, v in found.items() if isinstance(v, int | float)}


@dataclass(frozen=True, slots=True)
class TopologyRecord:
    """What one topology left in its folder."""

    name: str
    folder: Path
    plan: Mapping[str, Any] = field(repr=False)
    manifest: Mapping[str, Any] = field(repr=False)
    environment: Mapping[str, Any] = field(repr=False)
    entries: tuple[Entry, ...] = field(repr=False)
    logs: tuple[Path, ...]

    @property
    def is_rehearsal(self) -> bool:
        return bool(self.plan.get("rehearsal"))

    @property
    def identity(self) -> str:
        return str(self.plan.get("identity", ""))


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run.

    Attributes:
        verdict: Content of ``verdict.json``; empty when the run was killed.
        outcomes: One per test.
        damaged: What of its files could not be read, a line each.
    """

    path: Path
    run_id: str
    verdict: Mapping[str, Any] = field(repr=False)
    outcomes: tuple[TestOutcome, ...] = field(repr=False)
    topologies: tuple[TopologyRecord, ...]
    damaged: tuple[str, ...] = ()

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(
            entry for topology in self.topologies for entry in topology.entries
        )

    @property
    def is_finished(self) -> bool:
        return bool(self.verdict)

    @property
    def is_rehearsal(self) -> bool:
        return any(topology.is_rehearsal for topology in self.topologies)

    def counts(self) -> dict[str, int]:
        """Return how many tests ended how, worst first."""
        found: dict[str, int] = {}
        for name in self.told():
            for verdict, number in self.told()[name].items():
                found[verdict] = found.get(verdict, 0) + int(number)
        return dict(sorted(found.items(), key=lambda item: rank(item[0])))

    def told(self) -> Mapping[str, Mapping[str, int]]:
        """Return topology to verdict to number of tests."""
        if self.verdict:
            told: Mapping[str, Mapping[str, int]] = self.verdict.get("topologies", {})
            return told
        found: dict[str, dict[str, int]] = {}
        for outcome in self.outcomes:
            counts = found.setdefault(outcome.topology, {})
            counts[outcome.verdict] = counts.get(outcome.verdict, 0) + 1
        return found

    @property
    def gate(self) -> str:
        """What ``--pd-gate`` said in a word; empty without one."""
        return str(self.verdict.get("gate") or "")

    @property
    def gate_lines(self) -> tuple[str, ...]:
        """A line for each figure that the gate judged, then its summary."""
        return tuple(map(str, self.verdict.get("gate_lines") or ()))

    @property
    def word(self) -> str:
        """The verdict of the run in one word; green only as ``passed``."""
        counts = self.counts()
        for verdict in BAD:
            if counts.get(verdict):
                return "invalid" if verdict == "invalid" else "failed"
        if not self.is_finished:
            return "unfinished"
        if self.verdict.get("without_verdict") or not counts.get("passed"):
            return "no verdict"
        return "passed" if not self.verdict.get("exit_status") else "failed"


def read_run(path: Path) -> RunRecord:
    """Return what a run directory, or the folder of one topology in it, holds.

    Secrets of this process's environment are masked in everything that is read.
    The torn last line of a killed run is left out; all else that cannot be read is
    named in `damaged`.

    Raises:
        MeasurementError: there is no run in `path`.
    """
    is_one = is_topology(path)
    root = path.resolve().parent if is_one else path
    folders = [path] if is_one else topology_folders(path)
    if not folders and not (root / VERDICT_FILE).is_file():
        raise MeasurementError(
            f"{str(path)!r} holds no run.",
            hint="name a folder that pytest-pd made, for example runs/<utc>-<run id>",
        )
    files = _Files()
    topologies = tuple(_topology(folder, files) for folder in folders)
    verdict = fitted(files.object(root / VERDICT_FILE), shape.VERDICT)
    lines = files.lines(root / OUTCOMES_FILE)
    outcomes = settled(TestOutcome.from_record(line) for line in lines)
    known = [str(t.manifest.get("run_id", "")) for t in topologies]
    name = str(verdict.get("run_id") or next(filter(None, known), root.name))
    damaged = tuple(files.damaged)
    return RunRecord(path, name, verdict, tuple(outcomes), topologies, damaged)


def is_topology(path: Path) -> bool:
    """Tell whether a folder is of one topology of a run, and not of the run."""
    return (path / "plan.json").is_file()


def overlap(one: Path, other: Path) -> bool:
    """Tell whether two folders are of one run, whole or one topology of it."""
    first, second = one.resolve(), other.resolve()
    return (
        first == second
        or (is_topology(first) and first.parent == second)
        or (is_topology(second) and second.parent == first)
    )


def topology_folders(run: Path) -> list[Path]:
    """Return the folders of the topologies of a run, by name."""
    marks = ("plan.json", "manifest.json", ENTRIES_FILE)
    return sorted({p.parent for mark in marks for p in run.glob(f"*/{mark}")})


@dataclass(frozen=True, slots=True)
class _Files:
    """Reader of the files of one run; `damaged` gathers what it cannot read."""

    damaged: list[str] = field(default_factory=list)

    def object(self, path: Path) -> dict[str, Any]:
        """Return the JSON object in a file; empty where there is none."""
        text = self._text(path)
        if text is None:
            return {}
        found = _parsed(text)
        if found is None:
            self.tell(path, "holds no JSON object")
        return found or {}

    def lines(self, path: Path) -> list[dict[str, Any]]:
        """Return the JSON objects in a file, one a line."""
        *whole, torn = (self._text(path) or "").split("\n")  # by a kill
        found = [_parsed(text) for text in whole if text.strip()]
        if lost := found.count(None):
            self.tell(path, f"{lost} of {len(found)} lines cannot be read")
        return [record for record in (*found, _parsed(torn)) if record is not None]

    def tell(self, path: Path, what: str) -> None:
        """Note what of a file is damaged."""
        self.damaged.append(f"{path.resolve().parent.name}/{path.name}: {what}")

    def _text(self, path: Path) -> str | None:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            self.tell(path, f"cannot be read: {error.strerror}")
            return None
        return redact(text, secrets=secrets_in(os.environ))


def _topology(folder: Path, files: _Files) -> TopologyRecord:
    return TopologyRecord(
        name=folder.name,
        folder=folder,
        plan=fitted(files.object(folder / "plan.json"), shape.PLAN),
        manifest=fitted(files.object(folder / "manifest.json"), shape.MANIFEST),
        environment=fitted(
            files.object(folder / "environment.json"), shape.ENVIRONMENT
        ),
        entries=tuple(_entries(folder / ENTRIES_FILE, files)),
        logs=tuple(sorted((folder / "logs").glob("*.log"))),
    )


def _entries(path: Path, files: _Files) -> list[Entry]:
    # a test that ran again replaces what it recorded before
    found: dict[str, Entry] = {}
    lost = 0
    for record in files.lines(path):
        try:
            if record.get("data"):
                found[str(record["fullname"])] = entry_from(record)
        except DAMAGED:
            lost += 1
    if lost:
        files.tell(path, f"{lost} of its figures cannot be read")
    return list(found.values())


def entry_from(record: Mapping[str, Any]) -> Entry:
    """Return an entry from its record, as pytest-benchmark names the fields."""
    params = _mapping(record.get("params"))
    return Entry(
        fullname=str(record["fullname"]),
        metric=str(record.get("group") or params.get("metric", "")),
        samples=tuple(float(sample) for sample in record["data"]),
        outcome=str(record.get("outcome", "passed")),
        params=params,
        info=fitted(_mapping(record.get("extra_info")), shape.INFO),
    )


def _mapping(found: object) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
