"""Brings one topology up for a session, once, with progress for a person."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, cast

import pytest

from pytest_pd.errors import ProvisionError
from pytest_pd.plan.model import DeploymentPlan, SiteFacts
from pytest_pd.plugin.keeping import keep_environment
from pytest_pd.provision import BACKENDS
from pytest_pd.provision.base import RunContext
from pytest_pd.provision.compose import plan_deployment
from pytest_pd.provision.deploy import deploy
from pytest_pd.provision.deployment import Deployment
from pytest_pd.provision.duration import duration_s
from pytest_pd.provision.plan_file import write_lock
from pytest_pd.provision.progress import ProgressLine
from pytest_pd.provision.rundir import RunDir, unwritable

if TYPE_CHECKING:
    from pytest_pd.plugin.session import PdSession


@contextmanager
def bring_up(session: PdSession, name: str) -> Iterator[Deployment]:
    """Yield the topology `name`, up; a second time in one run is refused.

    Raises:
        ProvisionError: it could not be brought up.
    """
    choice, config = session.choice, session.config
    if name in choice.attached:
        yield choice.attached[name]
        return
    cluster = choice.clusters[name]
    context = make_context(session, name)
    claim(context)

    def make_plan(site: SiteFacts) -> DeploymentPlan:
        plan = plan_deployment(choice.specs[name], cluster, site, roots=choice.roots)
        changed = config.hook.pytest_pd_modify_plan(config=config, plan=plan)
        return changed or plan

    backend = BACKENDS.get(cluster.backend)()
    keep = config.getoption("pd_keep")
    is_up = False
    try:
        with (
            progress_line(config) as progress,
            deploy(
                make_plan,
                backend,
                cluster,
                context,
                progress=progress,
                keep_s=duration_s(keep) if keep else None,
            ) as deployment,
        ):
            progress.close()
            write_lock(
                RunDir(context.run_dir), deployment.plan, choice.specs[name], cluster
            )
            keep_environment(session, name)
            is_up = True
            config.hook.pytest_pd_deployment_ready(config=config, deployment=deployment)
            yield deployment
    except ProvisionError as error:
        if is_up:
            raise
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
        owner = RunDir(context.run_dir).read_manifest().get("run_id", context.run_id)
        if owner != context.run_id:
            raise ProvisionError(
                f"{str(context.run_dir)!r} holds run {owner!r} already.",
                hint="choose another folder with --run-dir; nothing is overwritten",
            ) from None
        raise ProvisionError(
            f"Topology {context.run_dir.name!r} was up before in this run, "
            "in a worker that is gone.",
            hint="look at the test that ended the worker; then rerun with --lf",
            where=context.run_dir,
        ) from None
    except OSError as error:
        raise unwritable(context.run_dir, error) from error


@contextmanager
def progress_line(config: pytest.Config) -> Iterator[ProgressLine]:
    """Yield what shows progress outside of any capture; an xdist worker is silent."""
    capture = config.pluginmanager.get_plugin("capturemanager")
    if hasattr(config, "workerinput") or capture is None:
        yield ProgressLine(io.StringIO())
        return
    line = ProgressLine(cast(TextIO, Uncaptured(capture)))
    try:
        yield line
    finally:
        line.close()


class Uncaptured(io.TextIOBase):
    """A stream that steps out of pytest's capture for each line."""

    def __init__(self, capture: Any) -> None:
        self._capture = capture

    def isatty(self) -> bool:
        with self._capture.global_and_fixture_disabled():
            return sys.stdout.isatty()

    def write(self, text: str) -> int:
        with self._capture.global_and_fixture_disabled():
            sys.stdout.write(text)
            sys.stdout.flush()
        return len(text)
