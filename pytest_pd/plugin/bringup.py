"""Brings one topology up for a session, once, with progress for a person."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest

from pytest_pd.errors import ProvisionError, SpecError
from pytest_pd.plan.model import DeploymentPlan, SiteFacts
from pytest_pd.provision import BACKENDS
from pytest_pd.provision.base import RunContext
from pytest_pd.provision.compose import plan_deployment
from pytest_pd.provision.deploy import deploy
from pytest_pd.provision.deployment import Deployment
from pytest_pd.provision.rundir import RunDir, unwritable

if TYPE_CHECKING:
    from pytest_pd.plugin.session import PdSession

PLAIN_EVERY_S = 5.0
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@contextmanager
def bring_up(session: PdSession, name: str) -> Iterator[Deployment]:
    """Yield the topology `name`, up; a second time in one run is refused.

    Raises:
        ProvisionError: it could not be brought up.
    """
    choice, config = session.choice, session.config
    cluster = choice.clusters[name]
    context = make_context(session, name)
    claim(context)

    def make_plan(site: SiteFacts) -> DeploymentPlan:
        plan = plan_deployment(choice.specs[name], cluster, site, roots=choice.roots)
        changed = config.hook.pytest_pd_modify_plan(config=config, plan=plan)
        return changed or plan

    backend = BACKENDS.get(cluster.backend)()
    keep = config.getoption("pd_keep")
    try:
        with (
            progress_line(config) as progress,
            deploy(
                make_plan,
                backend,
                cluster,
                context,
                progress=progress,
                keep_s=seconds(keep) if keep else None,
            ) as deployment,
        ):
            progress("")
            config.hook.pytest_pd_deployment_ready(config=config, deployment=deployment)
            yield deployment
    except ProvisionError as error:
        config.hook.pytest_pd_deployment_failed(
            config=config, plan=choice.plans[name], error=error
        )
        raise


def make_context(session: PdSession, name: str) -> RunContext:
    """Return who runs and where this topology's files lie."""
    folder = session.run.dir / name
    return RunContext(
        run_id=session.run.id,
        run_dir=folder,
        lease=RunDir(folder).lease,
        lease_ttl_s=session.choice.clusters[name].lease_ttl_s,
    )


def claim(context: RunContext) -> None:
    """Make this topology's folder; refuse if another worker of the run had it.

    A worker that crashed took its topology with it. Whoever gets the rest of its
    tests must not bring it up again: the old services may still be ending.

    Raises:
        ProvisionError: it was up before in this run, or the disk refuses.
    """
    try:
        context.run_dir.mkdir(parents=True)
    except FileExistsError:
        raise ProvisionError(
            f"Topology {context.run_dir.name!r} was up before in this run, "
            "in a worker that is gone.",
            hint="look at the test that ended the worker; then rerun with --lf",
            where=context.run_dir,
        ) from None
    except OSError as error:
        raise unwritable(context.run_dir, error) from error


def seconds(text: str) -> float:
    """Return a time like ``90``, ``30m`` or ``2h`` in seconds.

    Raises:
        SpecError: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if match is None:
        raise SpecError(f"{text!r} is no time.", hint="write 90, 30m, 2h or 1d")
    return float(match[1]) * UNITS[match[2] or "s"]


@contextmanager
def progress_line(config: pytest.Config) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows one line of progress outside of any capture.

    On a terminal the line is written over; elsewhere a line comes every 5 s.
    """
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(config, "workerinput"):
        yield lambda line: None
        return
    capture = config.pluginmanager.get_plugin("capturemanager")
    show = live_line if sys.stdout.isatty() else partial(plain_line, [time.monotonic()])

    def _progress(line: str) -> None:
        if capture is None:
            show(reporter, line)
            return
        with capture.global_and_fixture_disabled():
            show(reporter, line)

    yield _progress


def live_line(reporter: pytest.TerminalReporter, line: str) -> None:
    """Write `line` over the last one; an empty line wipes it."""
    reporter.rewrite(line[:100], erase=True) if line else reporter.rewrite(
        "", erase=True
    )


def plain_line(
    last_s: list[float], reporter: pytest.TerminalReporter, line: str
) -> None:
    """Write `line` if the last one is some seconds old."""
    now_s = time.monotonic()
    if line and now_s - last_s[0] >= PLAIN_EVERY_S:
        last_s[0] = now_s
        reporter.write_line(line)
