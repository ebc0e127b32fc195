"""SSH hosts as a backend: one connection per host, a launcher there per service."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from pytest_pd.plan.model import DeploymentPlan
from pytest_pd.provision.base import Allocation, Finding, RunContext
from pytest_pd.provision.local import mark_of
from pytest_pd.provision.looking import looked_at, refuse_images
from pytest_pd.provision.preflight_nodes import node_findings
from pytest_pd.provision.rundir import RunDir
from pytest_pd.provision.ssh_allocation import SshAllocation, own_dir, remote_dir
from pytest_pd.provision.ssh_host import RemoteHost
from pytest_pd.provision.ssh_process import end_marked
from pytest_pd.spec.cluster import ClusterSpec

END = """\
cd {folder} 2>/dev/null || exit 0
printf 'bye                 \\n' 1<>lease
for n in $(seq 300); do
  alive=
  for record in state/*.started.json; do
    pid=$(sed -n 's/.*"launcher_pid": \\([0-9]*\\).*/\\1/p' "$record" 2>/dev/null)
    if [ -n "$pid" ] && tr '\\0' ' ' </proc/"$pid"/cmdline 2>/dev/null |
      grep -q launcher.py; then alive=yes; fi
  done
  [ -z "$alive" ] && exit 0
  sleep 0.1
done
echo "launchers of {folder} still run after 30 s" >&2
exit 1
"""
"""Ends a run from outside: its launchers see the last word of the lease."""


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
        refuse_images(self.name, plans)

    def clean(self, cluster: ClusterSpec, context: RunContext) -> None:
        """Give the lease back on every host, then remove the run's folder there.

        Hosts may share it: it stays until the services of all of them have ended,
        and what killed launchers left too.

        Raises:
            ProvisionError: something lives on.
        """
        assert cluster.ssh is not None
        site, remote = cluster.ssh, remote_dir(cluster.ssh, context)
        hosts = [
            RemoteHost(site, each, own_dir(remote, f"node{n}"), context.run_dir)
            for n, each in enumerate(site.hosts[: cluster.nodes])
        ]

        def end_there(host: RemoteHost) -> None:
            host.checked(END.format(folder=shlex.quote(host.remote)))

        def sweep_there(host: RemoteHost) -> None:
            end_marked(host, mark_of(context))

        ended = False
        with ThreadPoolExecutor(site.parallel, "pd-ssh") as pool:
            try:
                list(pool.map(end_there, hosts))
                # only now: two names may be one machine, and services have a grace
                list(pool.map(sweep_there, hosts))
                ended = True
            finally:
                for host in hosts:
                    host.close(remove=remote if ended else None)

    def preflight(
        self, cluster: ClusterSpec, plan: DeploymentPlan, run_dir: Path
    ) -> Sequence[Finding]:
        """Connect to every host of the plan and look at it."""
        with looked_at(self.allocate, cluster, plan, run_dir) as allocation:
            assert isinstance(allocation, SshAllocation)
            facts = allocation.facts(plan)
        busy = frozenset((n, p) for n, each in facts.items() for _, p in each["busy"])
        return list(node_findings(cluster, plan, facts, busy))

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
