"""Calls pytest for a night: once to list the tests, then to run them. I/O."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from pytest_pd.errors import SpecError
from pytest_pd.files import read_object
from pytest_pd.nightly.judgement import INTERRUPTED, Attempt
from pytest_pd.report.outcome import TestOutcome

PLUGIN = ("-p", "pytest_pd.plugin.night", "--pd-night")
GRACE_S = 300.0
"""Time for taking everything down after the budget is over."""
MOST_WAIT_S = 86400.0
"""Collecting may take so long, however large the budget; poll waits 24 days at most."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Listed:
    """The tests that the arguments mean; not empty."""

    tests: tuple[str, ...]
    topologies: tuple[str, ...]


def list_tests(
    words: Sequence[str], folder: Path, limit_s: float | None = None
) -> Listed:
    """Collect and start nothing.

    Raises:
        SpecError: pytest refuses the arguments, cannot collect, or finds no test; with
            its own words.
        TimeoutError: it still collected after `limit_s`, or a day; it is killed.
    """
    wait_s = None if limit_s is None else min(limit_s, MOST_WAIT_S)
    argv = [*_pytest(words), *PLUGIN, str(folder), "--collect-only", "-q"]
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=wait_s,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(
            f"pytest still collected tests after {wait_s:g} s"
        ) from error
    path = folder / "tests.jsonl"
    rows = _json_lines(path)
    if done.returncode not in (0, 5) or not rows:
        said = (done.stdout[-3000:] + done.stderr[-3000:]).strip()
        raise SpecError(
            f"pytest cannot list the tests (exit code {done.returncode}):\n{said}",
            hint=f"try it without the night: pytest {' '.join(words)} --collect-only",
        )
    names = {str(row["topology"]) for row in rows if row["topology"]}
    return Listed(tuple(str(row["test"]) for row in rows), tuple(sorted(names)))


def run_tests(
    words: Sequence[str],
    folder: Path,
    run_dir: Path,
    *,
    only: Sequence[str] = (),
    limit_s: float | None = None,
    grace_s: float = GRACE_S,
) -> Attempt:
    """Run pytest to its end, or until the time is over; return what came out.

    Args:
        folder: Of this attempt; made here.
        only: Run these tests and no others.
        limit_s: Then pytest gets a Ctrl-C, takes everything down and reports.
    """
    folder.mkdir(parents=True)
    if only:
        (folder / "only.txt").write_text("\n".join(only) + "\n", encoding="utf-8")
    argv = [*_pytest(words), f"--junitxml={folder / 'junit.xml'}"]
    argv += [f"--pd-run-dir={run_dir}", *PLUGIN, str(folder)]
    began_s = time.monotonic()
    exit_code, cut = _supervise(argv, limit_s, grace_s)
    verdict = read_object(run_dir / "verdict.json")
    lines = _json_lines(folder / "outcomes.jsonl")
    return Attempt(
        exit_code=exit_code,
        wall_s=time.monotonic() - began_s,
        outcomes=tuple(map(TestOutcome.from_record, lines)),
        silent=tuple(verdict.get("without_verdict", ())),
        gate=str(verdict.get("gate", "")),
        gate_lines=tuple(map(str, verdict.get("gate_lines", ()))),
        gate_file=str(verdict.get("gate_file", "")),
        run_dir=str(run_dir),
        cut=cut,
        queued_s=_queued_s(run_dir),
    )


def _queued_s(run_dir: Path) -> float:
    """Return how long the topologies of a run waited for machines, where it is known.

    Added up: as a rule they come up one after the other.
    """
    manifests = map(read_object, run_dir.glob("*/manifest.json"))
    timings = [manifest.get("timings", {}) for manifest in manifests]
    return sum(float(each.get("allocate", 0.0)) for each in timings)


def _pytest(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "pytest", *words]


def _supervise(
    argv: Sequence[str], limit_s: float | None, grace_s: float
) -> tuple[int, bool]:
    """Return the exit code, and whether the time was over first."""
    # handlers first: pytest would inherit that a shell's "&" ignores Ctrl-C
    with _passing_signals() as relay:
        with subprocess.Popen(argv, start_new_session=True) as child:
            relay.serve(child)
            try:
                code, cut = child.wait(limit_s), False
            except subprocess.TimeoutExpired:
                code, cut = _end(child, grace_s), True
        return (INTERRUPTED if relay.caught else code), cut


def _end(child: subprocess.Popen[bytes], grace_s: float) -> int:
    """Ctrl-C, time to take everything down, a second Ctrl-C, then SIGKILL.

    What a killed pytest leaves behind ends with its lease.
    """
    for _ in range(2):
        child.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            return child.wait(grace_s)
    child.kill()
    return child.wait()


class _Relay:
    """Hands signals on to a child, as soon as there is one."""

    def __init__(self) -> None:
        self.caught: list[int] = []
        self.child: subprocess.Popen[bytes] | None = None

    def pass_on(self, number: int, _: FrameType | None) -> None:
        self.caught.append(number)
        if self.child is not None:
            self.child.send_signal(number)

    def serve(self, child: subprocess.Popen[bytes]) -> None:
        """Hand all that come on to `child`, and what came before it."""
        self.child = child
        for number in tuple(self.caught):
            child.send_signal(number)


@contextmanager
def _passing_signals() -> Iterator[_Relay]:
    """Hand Ctrl-C, SIGTERM and SIGHUP on; one that ``nohup`` ignores stays ignored."""
    relay = _Relay()
    passed = [
        number
        for number in SIGNALS
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
    ]
    before = {number: signal.signal(number, relay.pass_on) for number in passed}
    try:
        yield relay
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _json_lines(path: Path) -> list[Mapping[str, Any]]:
    """Return the objects of a file; a torn last line is left out."""
    found = []
    is_there = path.is_file()
    text = path.read_text(encoding="utf-8", errors="replace") if is_there else ""
    for line in text.splitlines():
        with suppress(ValueError):
            found.append(json.loads(line))
    return [each for each in found if isinstance(each, dict)]
