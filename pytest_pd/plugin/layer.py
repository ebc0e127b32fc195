"""Which layer broke: infra, provision, server, client, accuracy or performance.

Told beside the verdict, so that a night's failure reaches the right person.
"""

from __future__ import annotations

from collections.abc import Collection, Generator

import pytest

from pytest_pd.errors import (
    BackendMissing,
    InfrastructureLost,
    InvalidRun,
    MeasurementError,
    PdError,
    ProcessDied,
    ProvisionError,
)
from pytest_pd.plugin.selection import topology_of
from pytest_pd.plugin.verdict import BLOCKED, Blocked

BY_MARK = {
    "accuracy": "accuracy",
    "performance": "performance",
    "measure": "performance",
}


def layer_of(
    error: BaseException, *, when: str, marks: Collection[str] = (), was_up: bool
) -> str:
    """Return the layer that an exception speaks of.

    Args:
        when: Phase of pytest: ``setup``, ``call``, ``teardown``.
        marks: Names of the test's marks.
        was_up: Its topology had been up before.
    """
    if isinstance(error, Blocked) and error.__cause__ is not None:
        return layer_of(error.__cause__, when="setup", was_up=was_up)
    if isinstance(error, InfrastructureLost | BackendMissing):
        return "infra"
    if isinstance(error, ProvisionError):
        died_later = isinstance(error, ProcessDied) and was_up
        return "server" if died_later or when == "call" else "provision"
    if isinstance(error, InvalidRun | MeasurementError):
        return "client"
    if isinstance(error, PdError) or when != "call":
        return "client"
    found = [layer for mark, layer in BY_MARK.items() if mark in marks]
    return found[0] if found else "server"


class Layers:
    """Registered wherever tests run: plain pytest and every xdist worker."""

    def __init__(self) -> None:
        self.up: set[str] = set()
        """Topologies that carried a test already."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        name = topology_of(item.nodeid) or ""
        if report.failed and call.excinfo is not None:
            layer = self._layer(item, report, call.excinfo.value, name)
            report.pd_layer = layer  # type: ignore[attr-defined]
            item.user_properties.append(("pd_layer", layer))
        if report.when == "setup" and report.passed:
            self.up.add(name)
        return report

    def _layer(
        self,
        item: pytest.Item,
        report: pytest.TestReport,
        error: BaseException,
        name: str,
    ) -> str:
        blocked = getattr(report, "pd_verdict", "") == BLOCKED
        if blocked and not isinstance(error, Blocked):
            return "infra"  # the machines of a failing test went away
        return layer_of(
            error,
            when=report.when,
            marks={mark.name for mark in item.iter_markers()},
            was_up=name in self.up,
        )


def told_layer(report: pytest.TestReport) -> str:
    """Return the layer of a report that is not green; empty for any other."""
    if not report.failed:
        return ""
    # what could not be taken down has a report without a test's exception
    return str(getattr(report, "pd_layer", "provision"))
