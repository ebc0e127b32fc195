"""SSH hosts as a backend: one connection per host, a launcher there per service."""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pytest_pd.errors import InfrastructureLost, ProvisionError
from pytest_pd.plan.model import DeploymentPlan, ServicePlan
from pytest_pd.provision import launcher
from pytest_pd.provision.base import Allocation, RunContext
from pytest_pd.provision.lease import disown
from pytest_pd.provision.local import launch_request
from pytest_pd.provision.rundir import RunDir, read_record
from pytest_pd.provision.ssh_host import RemoteHost
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.site_ssh import SshSite

RELAY_S = 60.0
KILLED_S = 10.0
LAUNCH = (
    'request=$(cat); printf %s "$request" | '
    "env {mark} setsid {python} >/dev/null 2>&1 &"
)
"""The request goes through pipes only: no file there ever holds a secret."""

SIGNAL = (
    "import sys; sys.path.insert(0, {bin!r}); import launcher, os\n"
    "alive = launcher.start_time({pid}) == {start}\n"
    "{act}"
)
TELL_LAUNCHER = "os.kill({pid}, {number}) if alive else None"
TELL_SERVICE = "launcher.send(launcher.descendants({pid}), {number}) if alive else None"
MARKER = "PDFACTS "
T = TypeVar("T")


class SshProcess:
    """A service on an SSH host, known by the mirrored records of its launcher."""

    def __init__(self, name: str, log: Path, run: RunDir, host: RemoteHost) -> None:
        self._name = name
        self._log = log
        self._run = run
        self._host = host

    @property
    def name(self) -> str:
        return self._name

    @property
    def log(self) -> Path:
        return self._log

    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal.

        Raises:
            InfrastructureLost: nothing was heard from the host for too long.
        """
        ended = read_record(self._run.ended(self._name))
        if "exit_code" in ended:
            return int(ended["exit_code"])
        if self._name in self._host.gone:
            return -signal.SIGKILL
        if lost_s := self._host.lost_s():
            raise InfrastructureLost(
                f"Nothing was heard from {self._host.name} for {lost_s:.0f} s: "
                f"whether {self._name!r} lives cannot be told.",
                hint="its lease ends it there; look at the host and the network",
                where=self._log,
            )
        return None

    def identity(self) -> Mapping[str, str | int]:
        """Return host, pid, start time and boot of the service."""
        record = read_record(self._run.started(self._name))
        return {
            "ssh": self._host.name,
            "pid": int(record.get("pid", 0)),
            "start_time": int(record.get("start_time", 0)),
            "boot_id": str(record.get("boot_id", "")),
        }

    def stop(self, *, grace_s: float) -> None:
        """End the service and all it started, as far as the host can be reached."""
        for number, seconds in ((signal.SIGTERM, grace_s), (signal.SIGUSR1, KILLED_S)):
            if not self._is_over() and seconds > 0:
                self._tell(TELL_LAUNCHER, number)
                self._host.wait_for(self._is_over, seconds)
        if not self._is_over():
            self._tell(TELL_SERVICE, signal.SIGKILL)
            self._host.wait_for(self._is_over, KILLED_S)

    def kill(self, signal: int) -> None:
        """Send a signal to the service and everything below it."""
        self._tell(TELL_SERVICE, signal)

    def _is_over(self) -> bool:
        """Whether its launcher has ended, or had nothing that it could start."""
        if self._name in self._host.gone:
            return True
        was_started = self._run.started(self._name).exists()
        return self._run.ended(self._name).exists() and not was_started

    def _tell(self, what: str, number: int) -> None:
        record = read_record(self._run.started(self._name))
        if not record:
            return
        pid, start = record["launcher_pid"], record["launcher_start_time"]
        code = SIGNAL.format(
            bin=f"{self._host.remote}/bin",
            pid=pid,
            start=start,
            act=what.format(pid=pid, number=int(number)),
        )
        python = self._host.site.python
        self._host.run(shlex.join([python, "-S", "-E", "-c", code]))


class SshAllocation:
    """Hosts of the inventory, ours for the time of one deployment."""

    def __init__(
        self, cluster: ClusterSpec, plan: DeploymentPlan, context: RunContext
    ) -> None:
        assert cluster.ssh is not None
        self._site: SshSite = cluster.ssh
        self._context = context
        self._run = RunDir(context.run_dir)
        names = [f"pytest-pd-{context.run_id}", context.run_dir.name]
        self._remote = "/".join([self._site.run_dir.rstrip("/"), *names])
        self._hosts = {
            node.name: RemoteHost(
                self._site,
                self._site.hosts[int(node.name.removeprefix("node"))],
                self._remote,
                context.run_dir,
            )
            for node in plan.nodes
        }
        self._processes: list[SshProcess] = []
        self._relay: subprocess.Popen[bytes] | None = None
        self.kept = False

    @property
    def run_dir(self) -> str:
        return self._remote

    @property
    def python(self) -> str:
        return self._site.package_python or self._site.python

    def open(self) -> None:
        """Connect to every host at once and bring our programs there.

        Raises:
            ProvisionError: a host refuses us or cannot be reached; names it.
        """
        self._all(lambda host: host.prepare())
        self._relay = self._start_relay()

    def _all(self, act: Callable[[RemoteHost], T]) -> dict[str, T]:
        """Do something on every host side by side; the first error is raised."""
        with ThreadPoolExecutor(self._site.parallel, "pd-ssh") as pool:
            found = {name: pool.submit(act, h) for name, h in self._hosts.items()}
        return {name: each.result() for name, each in found.items()}

    def _start_relay(self) -> subprocess.Popen[bytes]:
        """Start the helper that renews the lease on every host; wait until it does."""
        request = {
            "site": self._site.model_dump(mode="json"),
            "hosts": [
                (int(name.removeprefix("node")), self._remote) for name in self._hosts
            ],
            "lease": str(self._context.lease),
            "period_s": self._context.lease_ttl_s / 10,
        }
        relay = subprocess.Popen(
            [sys.executable, "-m", "pytest_pd.provision.ssh_relay"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert relay.stdin is not None
        assert relay.stdout is not None
        relay.stdin.write(json.dumps(request).encode() + b"\n")
        relay.stdin.close()
        ready = select.select([relay.stdout], [], [], RELAY_S)[0]
        if not ready or not relay.stdout.readline():
            end(relay)
            raise InfrastructureLost("The lease could not be brought to the hosts.")
        return relay

    def addresses(self, plan: DeploymentPlan) -> Mapping[str, str]:
        """Planned node name to the address of its host."""
        return {name: host.address for name, host in self._hosts.items()}

    def busy_ports(self, plan: DeploymentPlan) -> frozenset[tuple[str, int]]:
        """Ask every host which of its planned ports somebody listens on."""

        def ask(host: RemoteHost) -> list[int]:
            ports = [
                (host.address, port)
                for service in plan.services
                if self._hosts[service.node] is host
                for port in service.ports.values()
            ]
            text = host.checked(
                host.python("node_facts.py"), json.dumps({"ports": ports})
            )
            facts = json.loads(text.partition(MARKER)[2])
            return [port for _, port in facts["busy"]]

        found = self._all(ask)
        return frozenset((name, port) for name, busy in found.items() for port in busy)

    def start(self, service: ServicePlan) -> SshProcess:
        """Start the service under a launcher on its host.

        Raises:
            ProvisionError: a secret that it needs is not in the environment, or the
                host cannot start anything.
        """
        host = self._hosts[service.node]
        request = launch_request(service, self._context)
        request["log"] = f"{self._remote}/{service.log}"
        request["state"] = f"{self._remote}/state"
        request["lease"] = f"{self._remote}/lease"
        for old in (self._run.started(service.name), self._run.ended(service.name)):
            old.unlink(missing_ok=True)
        host.gone.discard(service.name)
        command = LAUNCH.format(
            mark=shlex.quote(f"{launcher.MARK}={request['mark']}"),
            python=host.python("launcher.py"),
        )
        host.checked(command, json.dumps(request))
        log = self._context.run_dir / service.log
        log.parent.mkdir(parents=True, exist_ok=True)
        process = SshProcess(service.name, log, self._run, host)
        self._processes.append(process)
        return process

    def keep(self) -> None:
        """Leave everything running when the block ends: the lease ends it."""
        self.kept = True

    def close(self) -> None:
        """End what still runs, newest first, unless it is kept; hang up."""
        try:
            if not self.kept:
                self._stop_all()
        finally:
            self._all(lambda host: host.close(remove=not self.kept))
            if self._relay is not None:
                leave(self._relay) if self.kept else end(self._relay)

    def _stop_all(self) -> None:
        failures = []
        for process in reversed(self._processes):
            try:
                process.stop(grace_s=0.0)
            except ProvisionError as error:
                failures.append(error)
        if failures:
            raise failures[0]


def leave(popen: subprocess.Popen[bytes]) -> None:
    """Let a helper of ours outlive us."""
    disown(popen)
    if popen.stdout is not None:
        popen.stdout.close()


def end(popen: subprocess.Popen[bytes]) -> None:
    """End a helper of ours and reap it."""
    if popen.poll() is None:
        os.killpg(popen.pid, signal.SIGKILL)
    popen.wait()
    if popen.stdout is not None:
        popen.stdout.close()


class SshBackend:
    """Starts services on the hosts of an inventory."""

    @property
    def name(self) -> str:
        return "ssh"

    def check(self, cluster: ClusterSpec, plans: Sequence[DeploymentPlan]) -> None:
        """Refuse containers: this backend starts programs.

        Raises:
            ProvisionError: a plan names an image.
        """
        for plan in plans:
            for service in plan.services:
                if service.image:
                    raise ProvisionError(
                        f"{plan.name}: {service.name!r} wants the image "
                        f"{service.image!r}; the ssh backend starts programs.",
                        hint="leave the image out, or choose a cluster whose "
                        "backend is slurm or kubernetes",
                    )

    @contextmanager
    def allocate(
        self, cluster: ClusterSpec, plan: DeploymentPlan, context: RunContext
    ) -> Iterator[Allocation]:
        """Yield the plan's hosts; when the block ends nothing of the run is left."""
        RunDir(context.run_dir).create()
        allocation = SshAllocation(cluster, plan, context)
        try:
            allocation.open()
            yield allocation
        finally:
            allocation.close()
