"""What ``pytest-pd nightly`` asks of pytest; loaded by it with ``-p``, never else.

In the folder of ``--pd-night`` it writes which tests there are (``tests.jsonl``, under
``--collect-only``) and how each ended (``outcomes.jsonl``, while the run goes), tests
without a topology too, and runs only those that ``only.txt`` names, if it is there.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pytest_pd.plugin.layer import Layers, told_layer
from pytest_pd.plugin.selection import topology_of
from pytest_pd.plugin.verdict import tells_end, verdict_of
from pytest_pd.report.outcome import TestOutcome, reason_of
from pytest_pd.secret import redact_all, secrets_in

TESTS = "tests.jsonl"
ONLY = "only.txt"
OUTCOMES = "outcomes.jsonl"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pd")
    group.addoption("--pd-night", dest="pd_night", default=None, metavar="DIR")


def pytest_configure(config: pytest.Config) -> None:
    chosen = config.getoption("pd_night")
    if chosen is None:
        return
    folder = Path(chosen)
    if not config.pluginmanager.has_plugin("pd-layers"):
        config.pluginmanager.register(Layers(), "pd-layers")
    config.pluginmanager.register(Selection(folder), "pd-night-selection")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Record(folder), "pd-night-record")


class Selection:
    """Lists the tests, or leaves out those that are not to run again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        path = self.folder / ONLY
        if not path.is_file():
            return
        wanted = set(path.read_text(encoding="utf-8").splitlines())
        left_out = [item for item in items if item.nodeid not in wanted]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if item.nodeid in wanted]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if not session.config.option.collectonly:
            return
        found = [{"test": i.nodeid, "topology": _topology(i)} for i in session.items]
        lines = "".join(json.dumps(one) + "\n" for one in found)
        (self.folder / TESTS).write_text(lines, encoding="utf-8")


def _topology(item: pytest.Item) -> str:
    return topology_of(item.nodeid) or ""


class Record:
    """Appends how each test ended, in the process that hears of all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secrets = secrets_in(os.environ)
        self.unkept: list[str] = []
        """Lines that are on no disk yet."""
        self.trouble = ""

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not tells_end(report):
            return
        outcome = TestOutcome(
            nodeid=report.nodeid,
            topology=topology_of(report.nodeid) or "",
            verdict=verdict_of(report),
            when=str(report.when),
            duration_s=report.duration,
            reason="" if report.passed else reason_of(report.longrepr),
            layer=told_layer(report),
        )
        line = json.dumps(redact_all(outcome.as_record(), self.secrets))
        self.unkept.append(line + "\n")
        self._keep()

    def _keep(self) -> None:
        """Append what is on no disk yet; one that is full now may not stay so."""
        try:
            with (self.folder / OUTCOMES).open("a", encoding="utf-8") as file:
                file.writelines(self.unkept)
        except OSError as error:
            self.trouble = str(error)
            if self.unkept[0] != "\n":
                self.unkept.insert(0, "\n")  # what came to disk may end in mid-line
        else:
            self.unkept.clear()

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter
    ) -> None:
        if self.unkept:
            self._keep()
        if lost := sum(line != "\n" for line in self.unkept):
            terminalreporter.write_line(
                f"pd: results of {lost} test(s) cannot be kept for the night: "
                f"{self.trouble}"
            )
