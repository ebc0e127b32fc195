"""Runs items: order, levels, topologies up and down around them, reports."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cached_property, partial
from textwrap import indent
from typing import TYPE_CHECKING, Any

import pytest

from pytest_pd.errors import InfrastructureLost, PdError, ProvisionError
from pytest_pd.plugin.manager import TopologyManager
from pytest_pd.plugin.marks import LEVELS, is_within, level_of, missing_facts
from pytest_pd.plugin.masking import mask_report, mask_warning
from pytest_pd.plugin.session import ENTRIES
from pytest_pd.plugin.timing import Durations, why_no_time
from pytest_pd.plugin.verdict import BLOCKED, judge, verdict_of

if TYPE_CHECKING:
    from pytest_pd.plugin.session import PdSession
    from pytest_pd.provision.deployment import Deployment


LOG = logging.getLogger(__name__)
NODE_WAIT_S = 4 * 3600.0
"""Longer than any one test measures; whoever holds a node so long is stuck."""


def topology_name(item: pytest.Item) -> str | None:
    """Return the topology an item is parametrized with, or None."""
    spec = getattr(item, "callspec", None)
    return spec.params.get("topology") if spec else None


def needs_deployment(item: pytest.Item) -> bool:
    """Tell whether an item needs its topology up, not only its name."""
    return "deployment" in getattr(item, "fixturenames", ())


def grouped(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the items with those of one topology together, order kept."""
    order: dict[str | None, list[pytest.Item]] = {}
    for item in items:
        order.setdefault(topology_name(item), []).append(item)
    return [item for group in order.values() for item in group]


class Runner:
    """Registered where tests run: plain pytest and every xdist worker."""

    def __init__(self, session: PdSession) -> None:
        self.session = session
        self.durations = Durations()
        self.diagnosed: set[str] = set()
        self.unheld: ProvisionError | None = None
        """Why the nodes of the test at hand could not be held."""

    @cached_property
    def manager(self) -> TopologyManager[Deployment]:
        from pytest_pd.plugin.bringup import bring_up

        return TopologyManager(partial(bring_up, self.session))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> Generator[None]:
        yield
        limit = config.getoption("pd_level")
        kept: list[pytest.Item] = []
        left: list[pytest.Item] = []
        for item in grouped(items):
            name = topology_name(item)
            if name:
                missing_facts(item, self.session.find(name).facts)
            level = limit or (self.session.find(name).level if name else LEVELS[-1])
            (kept if is_within(level_of(item), level) else left).append(item)
        items[:] = kept
        if left:
            config.hook.pytest_deselected(items=left)
            config.stash[LEFT_OUT] = len(left)
        keep_recording_items(items)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        names = [topology_name(i) for i in session.items if needs_deployment(i)]
        if names and not session.config.option.collectonly:
            self.manager.expect(name for name in names if name)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        name = topology_name(item)
        if name is None or not needs_deployment(item):
            return (yield)
        alone = any(map(item.get_closest_marker, ("measure", "performance")))
        self.unheld = None
        if not self._why_skip(item, name):
            with self._held(name, alone=False):
                if self.unheld is None:
                    self.manager.prepare(name)
        try:
            with self._held(name, alone=alone):
                return (yield)
        finally:
            with self._held(name, alone=False):
                error = self.manager.finished(name)
            self._report_teardown(item, error)

    @contextmanager
    def _held(self, name: str, *, alone: bool) -> Generator[None]:
        """Hold the nodes; what prevents it is the error of the test's set-up."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._nodes(name, alone=alone))
            except ProvisionError as error:
                self.unheld = error
            yield

    def _nodes(self, name: str, *, alone: bool) -> AbstractContextManager[None]:
        """Hold the topology's nodes: alone for an item that measures."""
        from pytest_pd.plugin.nodes import node_names
        from pytest_pd.provision.locks import node_locks

        if self.session.config.getoption("pd_share_nodes"):
            return nullcontext()
        return node_locks(
            node_names(self.session.choice, name),
            alone=alone,
            timeout_s=NODE_WAIT_S,
            tell=self._tell_aside,
        )

    def _tell_aside(self, line: str) -> None:
        """Show a line at once, past the capture; from a worker of xdist as well."""
        capture = self.session.config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            print(f"pd: {line}", file=sys.stderr, flush=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        name = topology_name(item)
        if name is None:
            return
        if reason := self._why_skip(item, name):
            pytest.skip(reason)
        if self.unheld is not None:
            error, self.unheld = self.unheld, None
            raise error
        if needs_deployment(item):
            left_s = self._check(name).seconds_left()
            if reason := why_no_time(left_s, self.durations.needed_s(item)):
                pytest.skip(reason)

    def _why_skip(self, item: pytest.Item, name: str) -> str:
        chosen = self.session.find(name)
        if chosen.unfit and needs_deployment(item):
            return chosen.unfit
        missing = missing_facts(item, chosen.facts)
        return f"topology {name!r} has not: {', '.join(missing)}" if missing else ""

    def _check(self, name: str) -> Deployment:
        deployment = self.manager.get(name)
        try:
            deployment.check_alive()
        except ProvisionError as error:
            self.manager.declare_broken(name, error)
            raise
        return deployment

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if verdict := judge(call):
            report.pd_verdict = verdict  # type: ignore[attr-defined]
        if call.excinfo is not None and isinstance(call.excinfo.value, PdError):
            report.longrepr = str(call.excinfo.value)
        if report.when == "call":
            self.durations.note(item, report.duration)
            self._ship_entries(item, report)
            self._tell_loss(item, report)
            self._tell_troubles(item, report)
        self._tell(item, report)
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> Generator[None]:
        # after every plugin that adds to a report, before every one that shows it
        mask_report(report, self.session.secrets)
        return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage) -> None:
        mask_warning(warning_message, self.session.secrets)

    def _ship_entries(self, item: pytest.Item, report: pytest.TestReport) -> None:
        """Attach what was recorded to the report, and keep it on disk as well."""
        entries = item.stash.get(ENTRIES, [])
        report.pd_benchmarks = entries  # type: ignore[attr-defined]
        if entries:
            from pytest_pd.plugin.keeping import NO_TOPOLOGY, keep_entries

            name = topology_name(item) or NO_TOPOLOGY
            rows = [entry | {"outcome": report.outcome} for entry in entries]
            try:
                keep_entries(self.session, name, rows)
            except OSError as error:
                report.outcome = "failed"
                report.longrepr = f"What was measured cannot be kept: {error}"

    def _tell_loss(self, item: pytest.Item, report: pytest.TestReport) -> None:
        """Say of a failure that its machines went away: no verdict on the content."""
        name = topology_name(item)
        if name is None or not report.failed or not needs_deployment(item):
            return
        try:
            self.manager.get(name).check_alive()
        except InfrastructureLost as error:
            report.pd_verdict = BLOCKED  # type: ignore[attr-defined]
            said = indent(str(report.longrepr), "    ")
            report.longrepr = f"{error}\n\nThe test said:\n{said}"
            self.manager.declare_broken(name, error)
        except Exception:
            LOG.debug("%s: no loss of machines", item.nodeid, exc_info=True)

    def _tell_troubles(self, item: pytest.Item, report: pytest.TestReport) -> None:
        """Add troubles that have a name to the first failure of a topology."""
        name = topology_name(item)
        if name is None or not report.failed or not needs_deployment(item):
            return
        if name in self.diagnosed:
            return
        self.diagnosed.add(name)
        from pytest_pd.provision.base import Diagnoses

        try:
            deployment = self.manager.get(name)
            place: object = deployment.allocation
            if isinstance(place, Diagnoses):
                found = place.diagnose(deployment.plan)
                text = "\n".join(found) or "no trouble that has a name was found"
                report.sections.append(("pytest-pd looked at the deployment", text))
        except Exception:
            LOG.debug("%s: the deployment cannot be looked at", name, exc_info=True)

    def _tell(self, item: pytest.Item, report: pytest.TestReport) -> None:
        """Add what JUnit and other readers want to know about this test."""
        name = topology_name(item)
        if name is None or (report.when != "call" and not report.failed):
            return
        run = self.session.run
        item.user_properties += [
            ("pd_verdict", verdict_of(report)),
            ("pd_topology", name),
            ("pd_run_id", run.id),
            ("pd_logs", str(run.dir / name / "logs")),
        ]

    def _report_teardown(self, item: pytest.Item, error: BaseException | None) -> None:
        if error is None:
            return
        report = pytest.TestReport(
            nodeid=item.nodeid,
            location=item.location,
            keywords={},
            outcome="failed",
            longrepr=str(error),
            when="teardown",
        )
        item.ihook.pytest_runtest_logreport(report=report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        if "manager" in self.__dict__:
            for error in self.manager.close():
                self.session.complain(f"teardown: {error}")
        if self.session.is_worker:
            self.session.tell_controller(self.session.config.stash.get(LEFT_OUT, 0))


LEFT_OUT = pytest.StashKey[int]()
"""How many tests the level left out, for the summary."""


def keep_recording_items(items: list[pytest.Item]) -> None:
    """Undo ``--benchmark-only``'s skip for tests that record benchmark entries.

    pytest-benchmark knows only its own fixture and skips all other tests.
    """
    for item in items:
        if "record" in getattr(item, "fixturenames", ()):
            item.own_markers[:] = [
                mark for mark in item.own_markers if not _is_only_skip(mark)
            ]


def _is_only_skip(mark: pytest.Mark) -> bool:
    reason = str(mark.kwargs.get("reason", ""))
    return mark.name == "skip" and "--benchmark-only active" in reason
