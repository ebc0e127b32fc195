"""What one pytest session knows: its run, its topologies, what is up."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_pd.errors import PdError
from pytest_pd.secret import redact, secrets_in
from pytest_pd.spec.hardware import HARDWARE

if TYPE_CHECKING:
    from pytest_pd.plugin.choice import Choice
    from pytest_pd.plugin.run import Run
    from pytest_pd.plugin.runner import Runner
    from pytest_pd.plugin.selection import Selected

SESSION = pytest.StashKey["PdSession"]()
ENTRIES = pytest.StashKey[list[dict[str, Any]]]()
"""Benchmark entries that an item recorded; shipped on its call report."""
TOLD = "pd_told"
"""Where a worker's output holds what `PdSession.tell_controller` sends."""


class PdSession:
    """State of the plugin in one process: plain pytest, controller or worker."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.complaints: list[str] = []
        self.refusals: list[str] = []
        """What made it impossible to collect tests, each as one message."""
        self.runner: Runner
        self._secrets: dict[int, tuple[str, ...]] = {}

    def complain(self, text: str) -> None:
        """Keep a line for the end of the summary; the same line once."""
        clean = redact(text, self.secrets)
        if clean not in self.complaints:
            self.complaints.append(clean)

    @cached_property
    def run(self) -> Run:
        """Id and folder of the session.

        Raises:
            pytest.UsageError: ``--run-dir`` is no path.
        """
        from pytest_pd.plugin.run import make_run

        try:
            return make_run(self.config)
        except PdError as error:
            raise pytest.UsageError(str(error)) from error

    @property
    def is_worker(self) -> bool:
        return hasattr(self.config, "workerinput")

    @cached_property
    def choice(self) -> Choice:
        """Topologies and cluster of the session.

        Raises:
            pytest.UsageError: a name or a file asks for something impossible.
        """
        from pytest_pd.plugin.choice import choose

        try:
            return choose(self.config)
        except PdError as error:
            raise pytest.UsageError(redact(str(error), self.secrets)) from error

    @property
    def was_chosen(self) -> bool:
        """True when the user named a topology, a cluster or hardware.

        Marks are everybody's: ``-m h100`` means topologies only in a project
        whose tests have asked for one.
        """
        option = self.config.getoption
        named = ("pd_topology", "pd_cluster", "pd_attach", "pd_rehearse")
        words = set(re.findall(r"\w+", option("markexpr", "") or ""))
        asked = "choice" in self.__dict__
        return any(map(option, named)) or (asked and not words.isdisjoint(HARDWARE))

    @property
    def selected(self) -> tuple[Selected, ...]:
        return self.choice.selected

    @cached_property
    def gate_file(self) -> Path | None:
        """Path of ``--pd-gate``, which can be read as a gate; None without one.

        Raises:
            pytest.UsageError: it cannot.
        """
        chosen = self.config.getoption("pd_gate")
        if not chosen:
            return None
        from pytest_pd.spec.gate import read_gate
        from pytest_pd.user import expand

        try:
            path = self.config.invocation_params.dir / expand(chosen)
            read_gate(path)
        except PdError as error:
            raise pytest.UsageError(str(error)) from error
        return path

    def check_choice(self) -> None:
        """Refuse a wrong name before anything is collected; get ready to gather."""
        if not self.is_worker:
            self.gate_file  # noqa: B018  a wrong one would cost the run its judgement
        if self.config.getoption("pd_run_dir") and not self.is_worker:
            from pytest_pd.plugin.run import refuse_used

            refuse_used(self.run.dir)
        gathers = self.config.getoption("dist", "no") != "no"
        if self.was_chosen or gathers or self.config.getoption("pd_gate"):
            self.activate()
        if self.was_chosen:
            self.choice  # noqa: B018

    def tell_controller(self, left_out: int) -> None:
        """Send what only this worker knows and the summary has to say."""
        self.config.workeroutput[TOLD] = {  # type: ignore[attr-defined]
            "left_out": left_out,
            "complaints": self.complaints,
        }

    def hear_worker(self, output: Mapping[str, Any]) -> None:
        """Take in what a worker told; all of them leave out the same tests."""
        from pytest_pd.plugin.runner import LEFT_OUT

        told = output.get(TOLD, {})
        known = self.config.stash.get(LEFT_OUT, 0)
        self.config.stash[LEFT_OUT] = max(known, told.get("left_out", 0))
        self.complaints += told.get("complaints", [])

    def note_refusal(self, report: pytest.CollectReport) -> None:
        """Say in one message what a module cannot be collected for; no traceback.

        The session then ends as with any other wrong word on the command line.
        A worker cannot end the session: there the message is the module's error.
        """
        call = report.__dict__.get("call")
        error = call.excinfo.value if call and call.excinfo else None
        cause = error if isinstance(error, PdError) else getattr(error, "__cause__", 0)
        if not isinstance(cause, PdError):
            return
        report.longrepr = redact(str(cause), self.secrets)
        if not self.is_worker:
            self.refusals.append(report.longrepr)
            report.outcome, report.longrepr, report.result = "passed", None, []

    def raise_refusal(self) -> None:
        """End the session if something could not be collected.

        Raises:
            pytest.UsageError: with each message once.
        """
        if self.refusals:
            raise pytest.UsageError("\n".join(dict.fromkeys(self.refusals)))

    def params(self) -> list[Any]:
        """Return the values of the ``topology`` parameter, marked by hardware."""
        from pytest_pd.plugin.selection import param_id

        self.activate()
        return [
            pytest.param(
                chosen.id,
                id=param_id(chosen.id),
                marks=[getattr(pytest.mark, chosen.hardware)]
                if chosen.hardware in HARDWARE
                else [],
            )
            for chosen in self.selected
        ]

    def find(self, topology_id: str) -> Selected:
        """Return what was selected under this id."""
        return next(chosen for chosen in self.selected if chosen.id == topology_id)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What nothing that is kept or shown may hold, longest first.

        Values of variables whose names promise a secret, and of all that a plan takes
        from this host, whatever they are called.
        """
        plans = self.choice.plans if "choice" in self.__dict__ else {}
        if len(plans) not in self._secrets:  # more are known once topologies are
            services = [each for plan in plans.values() for each in plan.services]
            names = [name for each in services for name in each.env_from_host]
            self._secrets[len(plans)] = secrets_in(os.environ, also=names)
        return self._secrets[len(plans)]

    def machine_info(self) -> dict[str, Any] | None:
        """Describe the cluster, without host names; None if no topology is used."""
        if "choice" not in self.__dict__:
            return None
        cluster = self.choice.cluster
        return {
            "cluster": cluster.name,
            "backend": cluster.backend,
            "hardware": cluster.hardware,
            "nodes": cluster.nodes,
            "gpus_per_node": cluster.gpus_per_node,
            "python_version": platform.python_version(),
            "machine": platform.machine(),
            "cpu_count": os.cpu_count(),
        }

    def activate(self) -> None:
        """Register the parts, once: tests run here, or reports are gathered here.

        Done when the first test asks for a topology or records, or the user for a
        gate, so that a session without any of them does not pay for the imports.
        """
        manager = self.config.pluginmanager
        if manager.has_plugin("pd-runner"):
            return
        from pytest_pd.plugin.controller import Controller
        from pytest_pd.plugin.layer import Layers
        from pytest_pd.plugin.runner import Runner
        from pytest_pd.signals import install

        self.runner = Runner(self)
        manager.register(self.runner, "pd-runner")
        if not manager.has_plugin("pd-layers"):
            manager.register(Layers(), "pd-layers")
        if not self.is_worker:
            manager.register(Controller(self), "pd-controller")
            self.config.add_cleanup(install())
