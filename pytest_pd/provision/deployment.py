"""The running thing: what the session fixture yields to every suite."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from pytest_pd.errors import ProcessDied, ProvisionError
from pytest_pd.plan.model import DeploymentPlan, Endpoint, Role
from pytest_pd.probe.evidence import SCRAPE_TIMEOUT_S, Snapshot, take_snapshot
from pytest_pd.probe.logs import LogError, first_error, tail
from pytest_pd.provision.base import Allocation, Process, Timed
from pytest_pd.provision.lease import LeaseHolder
from pytest_pd.provision.rundir import RunDir
from pytest_pd.secret import redact, secrets_in


@dataclass(frozen=True, slots=True)
class Deployment:
    """A topology that is up.

    Attributes:
        processes: By service name; empty when it was attached by URL, or to nodes
            that somebody else holds.
        timings: Seconds of each stage of bring-up: ``allocate``, ``start``,
            ``ready:<service>``, ``stage:<service>:<stage>`` (since that service's
            start), ``first_token``, ``total``.
        attached: It was up before this run and stays up after it.
        lease: None when somebody else holds it.
        allocation: The machines; None when somebody else has them.
        revive: Starts a service anew that has ended, by name; None when somebody
            else started them.
    """

    plan: DeploymentPlan
    run_id: str
    run_dir: Path
    processes: Mapping[str, Process] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    attached: bool = False
    lease: LeaseHolder | None = None
    allocation: Allocation | None = None
    revive: Callable[[str], None] | None = None

    @property
    def url(self) -> str:
        """Base URL that clients use."""
        return self.plan.url

    @property
    def logs(self) -> Mapping[str, Path]:
        """Log by service name; of somebody else's processes those that still grow here.

        Slurm's are on a file system that is shared. Of other hosts and of pods there
        are copies, with which nobody goes on when their harness has left.
        """
        if self.processes:
            return {name: process.log for name, process in self.processes.items()}
        if RunDir(self.run_dir).read_manifest().get("backend") != "slurm":
            return {}
        known = {each.name: self.run_dir / each.log for each in self.plan.services}
        return {name: log for name, log in known.items() if log.is_file()}

    def endpoints(self, role: Role) -> tuple[Endpoint, ...]:
        """Return the endpoints of one role, in replica order."""
        return self.plan.of_role(role)

    def hosts_of(self, role: Role) -> set[str]:
        """Return every ``host:port`` by which others may know services of a role.

        That of the plan, and where a cluster gave one an address of its own, that:
        a router that finds its workers by itself knows no other.
        """
        found = set()
        for endpoint in self.plan.of_role(role):
            planned = urlsplit(endpoint.known_as)
            found.add(planned.netloc)
            if endpoint.service in self.processes:
                own = self.processes[endpoint.service].identity().get("address")
                found |= {f"{own}:{planned.port}"} if own else set()
        return found

    def evidence(self, *, timeout_s: float = SCRAPE_TIMEOUT_S) -> Snapshot:
        """Scrape every service now and note the length of every log."""
        return take_snapshot(self.plan.endpoints, self.logs, timeout_s=timeout_s)

    def seconds_left(self) -> float | None:
        """Return the seconds until the machines are taken away; None: never."""
        place: object = self.allocation
        return place.seconds_left() if isinstance(place, Timed) else None

    def check_alive(self) -> None:
        """Return at once if every service runs.

        Raises:
            ProcessDied: one has ended; with the first error over all logs.
            InfrastructureLost: the lease is not held any more.
        """
        with told_without(secrets_of_plan(self.plan)):
            raise_if_dead(self.processes, "while it was needed")
        if self.lease is not None:
            self.lease.check()


def secrets_of_plan(plan: DeploymentPlan) -> tuple[str, ...]:
    """Return what nothing that tells of a plan's services may hold, longest first."""
    names = {name for service in plan.services for name in service.env_from_host}
    return secrets_in(os.environ, also=names)


@contextmanager
def told_without(secrets: Sequence[str]) -> Iterator[None]:
    """Mask secrets in an error: it may show a log before its launcher masked that."""
    try:
        yield
    except ProvisionError as error:
        error.fact = redact(error.fact, secrets)
        error.hint = redact(error.hint, secrets)
        error.args = (error.fact,)
        raise


def raise_if_dead(processes: Mapping[str, Process], when: str) -> None:
    """Raise `ProcessDied` if any service has ended; any exit counts, 0 too."""
    codes = {name: process.exit_code() for name, process in processes.items()}
    dead = {name: code for name, code in codes.items() if code is not None}
    if dead:
        logs = {name: process.log for name, process in processes.items()}
        raise died(dead, logs, when)


def died(dead: Mapping[str, int], logs: Mapping[str, Path], when: str) -> ProcessDied:
    """Return the error that tells of a death: codes, first error, end of the log."""
    names = ", ".join(f"{name!r} {describe_code(code)}" for name, code in dead.items())
    first = first_error(logs)
    culprit = first.service if first and first.service in dead else next(iter(dead))
    lines = [f"{names} {when}.", *_about(first), f"  end of the log of {culprit}:"]
    lines += [f"    {line}" for line in tail(logs[culprit])] or ["    (empty)"]
    return ProcessDied(
        "\n".join(lines),
        hint=first.cause if first and first.cause else "",
        where=logs[culprit],
    )


def describe_code(code: int) -> str:
    """Return ``exited with code 1`` or ``was killed by signal 9``."""
    return f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"


def _about(first: LogError | None) -> list[str]:
    return [f"  {first}"] if first else []
