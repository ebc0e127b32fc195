"""Gathers reports of all workers: entries, verdicts, summary, exit status."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_pd.files import write_whole
from pytest_pd.plugin.layer import told_layer
from pytest_pd.plugin.runner import LEFT_OUT
from pytest_pd.plugin.selection import topology_of, without_verdict
from pytest_pd.plugin.verdict import (
    BLOCKED,
    INVALID,
    MARKUP,
    SHORT,
    tells_end,
    verdict_of,
)
from pytest_pd.report.outcome import TestOutcome, reason_of

if TYPE_CHECKING:
    from pytest_pd.plugin.session import PdSession

COLUMNS = ("min", "median", "iqr", "max", "rounds")
"""Columns of pytest-benchmark's table that say something about a latency."""
REACHED = ("passed", "failed", INVALID)


class Controller:
    """Registered once per session: plain pytest or xdist's controller."""

    def __init__(self, session: PdSession) -> None:
        self.session = session
        self.verdicts: dict[str, Counter[str]] = {}
        self.untied: Counter[str] = Counter()
        """Verdicts of tests that recorded and have no topology."""
        self.layers: Counter[str] = Counter()
        self.entries = 0
        self.unkept: list[TestOutcome] = []
        """Outcomes that are on no disk yet."""
        self.gate: list[str] = []
        self.gate_word = ""
        self.gate_file: Path | None = None
        self.is_lossy = False
        """Whether something could not be written: such a run is never green."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = topology_of(report.nodeid)
        if name and tells_end(report):
            self.verdicts.setdefault(name, Counter())[verdict_of(report)] += 1
            self._keep_outcome(name, report)
        entries = getattr(report, "pd_benchmarks", ())
        if entries and not name:
            self.untied[verdict_of(report)] += 1
        if entries and self.session.config.pluginmanager.has_plugin("benchmark"):
            from pytest_pd.report.benchmark import append_entries

            append_entries(self.session.config, entries, failed=not report.passed)
            self.entries += len(entries)

    def _keep_outcome(self, name: str, report: pytest.TestReport) -> None:
        from pytest_pd.plugin.keeping import keep_outcomes

        self.unkept.append(
            TestOutcome(
                nodeid=report.nodeid,
                topology=name,
                verdict=verdict_of(report),
                when=str(report.when),
                duration_s=report.duration,
                reason="" if report.passed else reason_of(report.longrepr),
                layer=told_layer(report),
            )
        )
        if report.failed:
            self.layers[told_layer(report)] += 1
        with self._told_if_lost():
            keep_outcomes(self.session, self.unkept)

    @contextmanager
    def _told_if_lost(self) -> Generator[None]:
        """Go on when the disk takes nothing more, and say so at the end."""
        try:
            yield
        except OSError as error:
            self.is_lossy = True
            self.session.complain(f"results cannot be kept: {error}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> Any:
        verdict = getattr(report, "pd_verdict", None)
        if verdict is None or not report.failed:
            return None
        letter, word = SHORT[verdict]
        return verdict, letter, (word, MARKUP[verdict])

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(
        self, session: pytest.Session, exitstatus: int
    ) -> Generator[None]:
        self._save_benchmarks()
        if not self._exempt() and exitstatus in (0, 5) and self.silent():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        bad = self._gate_failed(session.exitstatus) or self.is_lossy
        if bad and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        yield
        with self._told_if_lost():
            self._write_verdict(int(session.exitstatus))
        if self.is_lossy and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            self._say("pd: results cannot be kept: verdict.json was not written")
        self._write_report()

    def _gate_failed(self, exitstatus: int) -> bool:
        """Judge the run by ``--pd-gate``; a gate that cannot judge has failed too.

        Of a session that is red and has measured nothing it says nothing.
        """
        from pytest_pd.report.gated import PASSED, TOO_NOISY, gated

        chosen = self.session.gate_file
        if chosen is None or self._exempt():
            return False
        if exitstatus != pytest.ExitCode.OK and not (self.verdicts or self.untied):
            return False
        self.gate_file = chosen
        self.gate, self.gate_word = gated(self.gate_file, [self.session.run.dir])
        return self.gate_word not in (PASSED, TOO_NOISY)

    def _exempt(self) -> bool:
        return bool(self.session.config.option.collectonly)

    def silent(self) -> tuple[str, ...]:
        """Return the topologies that had to reach a verdict and did not."""
        if not self.session.was_chosen and not self.verdicts:
            return ()
        reached = {
            name: sum(counts[verdict] for verdict in REACHED)
            for name, counts in self.verdicts.items()
        }
        return without_verdict(self.session.selected, reached)

    def _save_benchmarks(self) -> None:
        """Save with samples, so that ``pytest-benchmark compare`` works at once."""
        config = self.session.config
        benchmark = config.pluginmanager.get_plugin("pytest-benchmark")
        if benchmark is None or not self.entries:
            return
        if self.verdicts:
            self.session.choice  # noqa: B018  machine_info tells of the cluster
        if config.getoption("benchmark_columns") is None:
            benchmark.columns = list(COLUMNS)
        if not benchmark.save and config.getini("pd_save"):
            benchmark.autosave = benchmark.autosave or self.session.run.id
            benchmark.save_data = True

    def _write_verdict(self, exitstatus: int) -> None:
        from pytest_pd.plugin.keeping import NO_TOPOLOGY

        folder = self.session.run.dir
        counts = {**self.verdicts, NO_TOPOLOGY: self.untied}
        told = {name: dict(each) for name, each in counts.items() if each}
        if self.gate_word:
            folder.mkdir(parents=True, exist_ok=True)
        elif not told or not folder.is_dir():
            return
        verdict = {
            "run_id": self.session.run.id,
            "exit_status": exitstatus,
            "topologies": told,
            "without_verdict": list(self.silent()),
            "layers": dict(self.layers),
            "gate": self.gate_word,
            "gate_lines": self.gate,
            "gate_file": str(self.gate_file or ""),
        }
        write_whole(folder / "verdict.json", json.dumps(verdict, indent=2))

    def _write_report(self) -> None:
        """Write page, summary and tables; what goes wrong there fails no test."""
        folder = self.session.run.dir
        if not (folder / "verdict.json").is_file() or self._exempt():
            return
        from pytest_pd.report.read import read_run
        from pytest_pd.report.write import files_of, write_files

        try:
            page, *_ = write_files(folder, files_of([read_run(folder)], folder))
            line = f"pd: report {page}"
        except Exception as error:
            line = f"pd: no report was written: {error!r}"
        self._say(line)

    def _say(self, line: str) -> None:
        terminal = self.session.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.ensure_newline()
            terminal.write_line(line)

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter
    ) -> None:
        for verdict in (INVALID, BLOCKED):
            self._section(terminalreporter, verdict)
        write = terminalreporter.write_line
        if left := self.session.config.stash.get(LEFT_OUT, 0):
            write(f"pd: {left} tests left out by level; --pd-level full runs all")
        if self.session.run.dir.is_dir():
            write(f"pd: run {self.session.run.id} in {self.session.run.dir}")
        for line in self.gate:
            write(f"pd: {line}")
        for name in () if self._exempt() else self.silent():
            write(f"pd: topology {name!r} reached no verdict: {self._why(name)}")
        for chosen in self.session.selected if self.verdicts else ():
            if chosen.unfit:
                write(f"pd: topology {chosen.id!r} cannot run here: {chosen.unfit}")
        for complaint in self.session.complaints:
            write(f"pd: {complaint}")

    def _why(self, name: str) -> str:
        counts = self.verdicts.get(name)
        if not counts:
            return "no test was selected for it (look at -m, -k and --pd-level)"
        return ", ".join(f"{n} {verdict}" for verdict, n in sorted(counts.items()))

    def _section(self, reporter: pytest.TerminalReporter, verdict: str) -> None:
        reports = reporter.stats.get(verdict, [])
        if not reports:
            return
        reporter.write_sep("=", verdict.upper(), **MARKUP[verdict])
        for report in reports:
            reason = str(report.longrepr).splitlines() or [""]
            reporter.write_line(f"{report.nodeid}")
            for line in reason[:1] if verdict == BLOCKED else reason:
                reporter.write_line(f"    {line}")
