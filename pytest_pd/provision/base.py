"""The backend seam: reserve machines, start processes there, take them away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from pytest_pd.plan.model import DeploymentPlan, ServicePlan
from pytest_pd.provision.wire import Wire
from pytest_pd.spec.cluster import ClusterSpec


@dataclass(frozen=True, slots=True)
class RunContext:
    """Who runs, and where its files lie.

    Attributes:
        run_id: Unique name of this run; every process and object carries it.
        run_dir: Folder of this topology inside the run, on the harness's host.
        lease: File whose changing content keeps the services alive.
        lease_ttl_s: Seconds without a change after which services end.
    """

    run_id: str
    run_dir: Path
    lease: Path
    lease_ttl_s: float


class Process(Protocol):
    """A started service, wherever it runs."""

    @property
    def name(self) -> str: ...

    @property
    def log(self) -> Path:
        """Its log on the harness's host, growing while it runs."""

    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal; the step's own code.

        Raises:
            InfrastructureLost: the machine is gone, not the process.
        """

    def identity(self) -> Mapping[str, str | int]:
        """What proves that it is ours: pid and start time, job and step, pod."""

    def stop(self, *, grace_s: float) -> None:
        """End it and everything it started; return when all of it is gone."""

    def kill(self, signal: int) -> None:
        """Send a signal to the whole service: for resilience suites."""


class Allocation(Protocol):
    """Machines that are ours for now."""

    @property
    def run_dir(self) -> str:
        """Run directory as the services see it."""

    @property
    def python(self) -> str:
        """Interpreter that runs our own programs on the nodes."""

    def addresses(self, plan: DeploymentPlan) -> Mapping[str, str]:
        """Planned node name to address, for `SiteFacts`."""

    def busy_ports(self, plan: DeploymentPlan) -> frozenset[tuple[str, int]]:
        """(node, port) pairs of the plan that somebody else holds."""

    def start(self, service: ServicePlan) -> Process:
        """Start one service and return at once.

        Raises:
            ProvisionError: it cannot be started here, with what to do.
        """

    def keep(self) -> None:
        """Leave everything running when the block ends: the lease ends it."""


@runtime_checkable
class Timed(Protocol):
    """An allocation that ends by itself at some time."""

    def seconds_left(self) -> float | None:
        """Return the seconds until then; None when there is no limit."""


@runtime_checkable
class LoadPlace(Protocol):
    """An allocation in which load is sent by one of its own nodes."""

    def load_command(self, node: str) -> tuple[str, ...]:
        """Return words that run Python with this package on a planned node.

        Empty where the harness has to send the load itself after all.
        """

    def load_env(self) -> Mapping[str, str]:
        """Return the environment of that command."""


@runtime_checkable
class Reached(Protocol):
    """An allocation whose nodes the harness reaches by other addresses than they do."""

    def reach(self, plan: DeploymentPlan) -> Mapping[str, str]:
        """Planned node name to the address for the harness."""


def reach_of(allocation: Allocation, plan: DeploymentPlan) -> Mapping[str, str]:
    """Return planned node name to where the harness finds it."""
    if isinstance(allocation, Reached):
        return allocation.reach(plan)
    return allocation.addresses(plan)


@runtime_checkable
class Diagnoses(Protocol):
    """An allocation that can look at its deployment after a failure."""

    def diagnose(self, plan: DeploymentPlan) -> tuple[str, ...]:
        """Return troubles that have a name, a sentence each; never raises."""


@runtime_checkable
class Wired(Protocol):
    """An allocation whose nodes count the bytes that they receive."""

    def wire(self) -> Wire:
        """Return what the nodes have received so far, by way."""


class Backend(Protocol):
    """Local, SSH, Slurm, Kubernetes."""

    @property
    def name(self) -> str: ...

    def check(self, cluster: ClusterSpec, plans: Sequence[DeploymentPlan]) -> None:
        """Refuse what this cluster cannot hold, before anything is started.

        Raises:
            BackendMissing: a tool of the backend is not on this host.
            ProvisionError: a limit would be passed, with the numbers.
        """

    def allocate(
        self, cluster: ClusterSpec, plan: DeploymentPlan, context: RunContext
    ) -> AbstractContextManager[Allocation]:
        """Yield machines for the plan; on exit nothing of the run is left."""


@runtime_checkable
class Janitor(Protocol):
    """A backend whose things lie elsewhere, where no pid of this machine shows them."""

    def clean(self, cluster: ClusterSpec, context: RunContext) -> None:
        """End every job, pod or remote process that carries the run's id.

        For ``down`` and ``reap``, from a process that did not start them. Proves
        by the run id that they are the run's own; nothing left is no error.
        """


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at before anything is started.

    Attributes:
        what: ``node0: port 8000``.
        ok: None when it could not be found out.
        said: What was seen, with numbers.
        hint: What to do about it; empty when all is well.
    """

    what: str
    ok: bool | None
    said: str
    hint: str = ""


@runtime_checkable
class Inspector(Protocol):
    """A backend that can look at its nodes before anything is started there."""

    def preflight(
        self, cluster: ClusterSpec, plan: DeploymentPlan, run_dir: Path
    ) -> Sequence[Finding]:
        """Look at programs, ports, GPUs, limits and disks of the plan's nodes."""
