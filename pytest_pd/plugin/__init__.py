"""The pytest plugin: hooks that decide nothing themselves.

Named ``pytest_pd.plugin`` as an entry point, so that ``-p`` and ``-p no:`` take
the same name. Nothing heavy is imported here: a session that does not use the
plugin must not notice it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_pd.plugin.marks import register_marks
from pytest_pd.plugin.options import add_options
from pytest_pd.plugin.session import SESSION, PdSession

if TYPE_CHECKING:
    from xdist.scheduler import Scheduling
    from xdist.workermanage import WorkerController

WORKER_EXIT_S = 30
"""How long an xdist worker may take its topologies down after an interrupt."""

pytest_plugins = ("pytest_pd.fixtures.registered",)


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from pytest_pd.plugin import hookspec

    pluginmanager.add_hookspecs(hookspec)


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    if not config.getoption("pd_plan"):
        return None
    from pytest_pd.plugin.choice import print_plans

    return print_plans(config)


def pytest_configure(config: pytest.Config) -> None:
    register_marks(config)
    config.stash[SESSION] = PdSession(config)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    known = session.config.stash[SESSION]
    known.check_choice()
    result = yield
    known.raise_refusal()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    session = collector.config.stash[SESSION]
    session.note_refusal(report)
    if not report.passed:
        from pytest_pd.plugin.masking import mask_report

        mask_report(report, session.secrets)
    return report


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    known = metafunc._arg2fixturedefs.get("record", ())
    if known and known[-1].func.__module__ == "pytest_pd.fixtures.record":
        metafunc.config.stash[SESSION].activate()
    if "topology" in metafunc.fixturenames and takes_topology(metafunc):
        params = metafunc.config.stash[SESSION].params()
        metafunc.parametrize("topology", params, scope="session", indirect=True)


def takes_topology(metafunc: pytest.Metafunc) -> bool:
    """Tell whether a test's ``topology`` is this plugin's, not a project's own."""
    marks = metafunc.definition.iter_markers("parametrize")
    if any("topology" in str(mark.args[:1]) for mark in marks):
        return False
    known = metafunc._arg2fixturedefs.get("topology", ())
    last = known[-1] if known else None
    return last is not None and (
        last.func.__module__ == "pytest_pd.fixtures.topology"
        or "topology" in last.argnames
    )


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    session = node.config.stash[SESSION]
    node.workerinput["pd_run"] = session.run.as_input()
    # An interrupted worker takes its topology down before it is killed: 10 s of
    # xdist's are over 5 s after execnet has interrupted it.
    node.nodemanager.EXIT_TIMEOUT = WORKER_EXIT_S


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: WorkerController) -> None:
    # a worker that crashed has no output
    node.config.stash[SESSION].hear_worker(getattr(node, "workeroutput", {}))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling | None:
    if config.getvalue("dist") in ("no", "each"):
        return None
    from pytest_pd.plugin.xdist import TopologyScheduling

    return TopologyScheduling(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_generate_machine_info(
    config: pytest.Config,
) -> dict[str, Any] | None:
    return config.stash[SESSION].machine_info()
