"""The pytest plugin: hooks that decide nothing themselves.

Named ``pytest_pd.plugin`` as an entry point, so that ``-p`` and ``-p no:`` take
the same name. Nothing heavy is imported here: a session that does not use the
plugin must not notice it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_pd.plugin.marks import register_marks
from pytest_pd.plugin.options import add_options
from pytest_pd.plugin.session import SESSION, PdSession

if TYPE_CHECKING:
    from xdist.scheduler import Scheduling
    from xdist.workermanage import WorkerController

pytest_plugins = (
    "pytest_pd.fixtures.topology",
    "pytest_pd.fixtures.ask",
    "pytest_pd.fixtures.record",
    "pytest_pd.fixtures.witness",
    "pytest_pd.fixtures.load",
)


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


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    session.config.stash[SESSION].check_choice()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "topology" in metafunc.fixturenames:
        params = metafunc.config.stash[SESSION].params()
        metafunc.parametrize("topology", params, scope="session", indirect=True)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    session = node.config.stash[SESSION]
    node.workerinput["pd_run"] = session.run.as_input()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling | None:
    if config.getvalue("dist") not in ("load", "loadgroup"):
        return None
    from pytest_pd.plugin.xdist import TopologyScheduling

    return TopologyScheduling(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_generate_machine_info(
    config: pytest.Config,
) -> dict[str, Any] | None:
    return config.stash[SESSION].machine_info()
