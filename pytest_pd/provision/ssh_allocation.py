"""Hosts of an inventory: one connection each, a launcher there per service."""

from __future__ import annotations

import json
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pytest_pd.errors import InfrastructureLost, ProvisionError
from pytest_pd.plan.model import DeploymentPlan, ServicePlan
from pytest_pd.provision import launcher
from pytest_pd.provision.base import RunContext
from pytest_pd.provision.lease import disown
from pytest_pd.provision.local import launch_request, mark_of
from pytest_pd.provision.node_lines import read_facts
from pytest_pd.provision.rundir import RunDir
from pytest_pd.provision.ssh_client import ssh_words
from pytest_pd.provision.ssh_host import RemoteHost
from pytest_pd.provision.ssh_process import SshProcess, end_marked
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.site_ssh import SshSite

RELAY_S = 60.0
LAUNCH = (
    'rm -f {old}; request=$(cat); printf %s "$request" | '
    "env {mark} setsid {python} >/dev/null 2>&1 &"
)
"""The request goes through pipes only: no file there ever holds a secret.

Records of an earlier start of the service would else be mirrored once more when a
connection is opened again.
"""
T = TypeVar("T")


class SshAllocation:
    """Hosts of the inventory, ours for the time of one deployment."""

    def __init__(
        self, cluster: ClusterSpec, plan: DeploymentPlan, context: RunContext
    ) -> None:
        assert cluster.ssh is not None
        self._site: SshSite = cluster.ssh
        self._context = context
        self._run = RunDir(context.run_dir)
        self._remote = remote_dir(self._site, context)
        self._hosts = {
            node.name: RemoteHost(
                self._site,
                self._site.hosts[int(node.name.removeprefix("node"))],
                own_dir(self._remote, node.name),
                context.run_dir,
            )
            for node in plan.nodes
        }
        self._processes: list[SshProcess] = []
        self._relay: subprocess.Popen[bytes] | None = None
        self._is_swept = False
        self.kept = False

    @property
    def run_dir(self) -> str:
        return self._remote

    @property
    def python(self) -> str:
        return self._site.package_python or self._site.python

    @property
    def mark(self) -> str:
        """The beginning of the mark that processes of this deployment carry."""
        return mark_of(self._context)

    def silent(self) -> tuple[str, ...]:
        """Return the hosts that nothing was heard from for too long."""
        return tuple(host.name for host in self._hosts.values() if host.lost_s())

    def open(self) -> None:
        """Connect to every host at once and bring our programs there.

        Raises:
            ProvisionError: a host refuses us or cannot be reached; names it.
        """
        self._all(lambda host: host.prepare())
        self._start_relay()

    def _all(self, act: Callable[[RemoteHost], T]) -> dict[str, T]:
        """Do something on every host side by side; the first error is raised."""
        with ThreadPoolExecutor(self._site.parallel, "pd-ssh") as pool:
            found = {name: pool.submit(act, h) for name, h in self._hosts.items()}
        return {name: each.result() for name, each in found.items()}

    def _start_relay(self) -> None:
        """Start the helper that renews the lease on every host; wait until it does."""
        request = {
            "site": self._site.model_dump(mode="json"),
            "hosts": [
                (int(name.removeprefix("node")), host.remote)
                for name, host in self._hosts.items()
            ],
            "lease": str(self._context.lease),
            "ttl_s": self._context.lease_ttl_s,
        }
        self._relay = relay = subprocess.Popen(
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
            raise InfrastructureLost("The lease could not be brought to the hosts.")

    def addresses(self, plan: DeploymentPlan) -> Mapping[str, str]:
        """Planned node name to the address of its host."""
        return {name: host.address for name, host in self._hosts.items()}

    def load_command(self, node: str) -> tuple[str, ...]:
        """Return words that run Python with this package on a planned node.

        Empty where the cluster file names no such Python, or here is no ssh.
        """
        if self._site.package_python is None or shutil.which("ssh") is None:
            return ()
        mark = f"{launcher.MARK}={mark_of(self._context, 'bench')}"
        host = self._hosts[node].host
        return ssh_words(self._site, host, ("env", mark, self.python))

    def load_env(self) -> Mapping[str, str]:
        """Return the environment of that command."""
        return os.environ

    def busy_ports(self, plan: DeploymentPlan) -> frozenset[tuple[str, int]]:
        """Ask every host which of its planned ports somebody listens on."""

        found = self.facts(plan)
        return frozenset(
            (name, port) for name, each in found.items() for _, port in each["busy"]
        )

    def facts(self, plan: DeploymentPlan) -> dict[str, dict[str, Any]]:
        """Return what every host says about itself, by planned node name."""

        def ask(host: RemoteHost) -> dict[str, Any]:
            ports = [
                (host.address, port)
                for service in plan.services
                if self._hosts[service.node] is host
                for port in service.ports.values()
            ]
            request = {"ports": ports, "gpus": True, "disk": self._remote}
            text = host.checked(host.python("node_facts.py"), json.dumps(request))
            (facts,) = read_facts(text).values()
            return {**facts, "node": host.name}

        return self._all(ask)

    def start(self, service: ServicePlan) -> SshProcess:
        """Start the service under a launcher on its host.

        Raises:
            ProvisionError: a secret that it needs is not in the environment, or the
                host cannot start anything.
        """
        host = self._hosts[service.node]
        request = launch_request(service, self._context)
        request["log"] = f"{host.remote}/{service.log}"
        request["state"] = f"{host.remote}/state"
        request["lease"] = f"{host.remote}/lease"
        old = (self._run.started(service.name), self._run.ended(service.name))
        for record in old:
            record.unlink(missing_ok=True)
        host.gone.discard(service.name)
        host.secrets.update(request["secrets"])
        for path, text in service.files.items():
            host.write(f"{self._remote}/{path}", text)
        command = LAUNCH.format(
            old=shlex.join(f"{host.remote}/state/{record.name}" for record in old),
            mark=shlex.quote(f"{launcher.MARK}={request['mark']}"),
            python=host.python("launcher.py"),
        )
        host.checked(command, json.dumps(request))
        log = self._context.run_dir / service.log
        log.parent.mkdir(parents=True, exist_ok=True)
        process = SshProcess(service.name, log, self._run, host, mark=request["mark"])
        self._processes.append(process)
        return process

    def keep(self) -> None:
        """Leave everything running when the block ends: the lease ends it."""
        self.kept = True

    def close(self) -> None:
        """End what still runs, newest first, unless it is kept; hang up.

        Raises:
            ProvisionError: something lives on although it was killed; hosts keep the
                run's folder.
        """
        try:
            if not self.kept:
                self._stop_all()
        finally:
            stuck = any(process.is_stuck for process in self._processes)
            stays = self.kept or stuck or not self._is_swept
            remove = None if stays else self._remote
            self._all(lambda host: host.close(remove=remove))
            if self._relay is not None:
                leave(self._relay) if self.kept else end(self._relay)

    def _stop_all(self) -> None:
        failures = []
        for process in reversed(self._processes):
            try:
                process.stop(grace_s=0.0)
            except ProvisionError as error:
                failures.append(error)
        try:
            self._sweep()
        except ProvisionError as error:
            failures.append(error)
        else:
            self._is_swept = True
        if failures:
            raise failures[0]

    def _sweep(self) -> None:
        """Kill what killed launchers left, on every host that can be reached.

        Raises:
            ProvisionError: something lives on, or a host is lost meanwhile.
        """
        used = {process.host.remote: process.host for process in self._processes}
        hosts = [host for host in used.values() if not host.lost_s()]
        with ThreadPoolExecutor(self._site.parallel, "pd-ssh") as pool:
            list(pool.map(lambda host: end_marked(host, self.mark), hosts))


def remote_dir(site: SshSite, context: RunContext) -> str:
    """Return the run directory on the hosts: its name has the run id."""
    names = [f"pytest-pd-{context.run_id}", context.run_dir.name]
    return "/".join([site.run_dir.rstrip("/"), *names])


def own_dir(remote: str, node: str) -> str:
    """Return where records, logs and lease of one host lie.

    Hosts may share the file system that the run directory is on.
    """
    return f"{remote}/hosts/{node}"


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
