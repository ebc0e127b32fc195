"""Slurm as a backend: one holder job per topology, one step per service."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pytest_pd.errors import ProvisionError
from pytest_pd.plan.model import DeploymentPlan
from pytest_pd.provision import launcher, node_facts
from pytest_pd.provision.base import Allocation, Finding, RunContext
from pytest_pd.provision.looking import looked_at
from pytest_pd.provision.preflight_nodes import node_findings
from pytest_pd.provision.rundir import RunDir
from pytest_pd.provision.slurm_client import SlurmClient
from pytest_pd.provision.slurm_inside import claimed_nodes, existing_job
from pytest_pd.provision.slurm_job import allocation_around, end_job, held_job
from pytest_pd.provision.slurm_limits import Wanted, check_limits, partition_of
from pytest_pd.provision.slurm_nodes import SlurmAllocation, site_of, slurm_folder
from pytest_pd.provision.slurm_step import JobHandle
from pytest_pd.provision.slurm_text import (
    JobRequest,
)
from pytest_pd.provision.slurm_watch import JobWatch
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.site_slurm import SlurmSite
from pytest_pd.user import expand

LOG = logging.getLogger(__name__)


class SlurmBackend:
    """Runs services in Slurm jobs. One poller serves all jobs of the process."""

    def __init__(self) -> None:
        self.client = SlurmClient()
        self.watch = JobWatch(self.client)

    @property
    def name(self) -> str:
        return "slurm"

    def check(self, cluster: ClusterSpec, plans: Sequence[DeploymentPlan]) -> None:
        """Refuse what would never start.

        Raises:
            BackendMissing: Slurm's commands are not on PATH.
            ProvisionError: a limit would be passed, with the numbers.
        """
        self.client.check()
        site = site_of(cluster)
        if allocation_around(site):
            return
        partitions = self.client.show("partition")
        nodes = self.client.show("node")
        for plan in plans:
            wanted = Wanted(plan.name, len(plan.nodes), cluster.gpus_per_node)
            check_limits(site, wanted, partitions, nodes)

    @contextmanager
    def allocate(
        self, cluster: ClusterSpec, plan: DeploymentPlan, context: RunContext
    ) -> Iterator[Allocation]:
        """Yield a running job's nodes; when the block ends the job is gone.

        A job with a node that can serve nobody is given back, and one more is asked
        for that leaves the node out.

        Raises:
            ProvisionError: that job has a bad node too, or the allocation is not ours.
        """
        with ExitStack() as stack:
            nodes = stack.enter_context(self.allocated(cluster, plan, context))
            if bad := nodes.bad_nodes(plan):
                refuse_bad(cluster, bad)
                LOG.warning("%s; asked for others", told_bad(bad))
                stack.close()
                others = without_nodes(cluster, bad)
                nodes = stack.enter_context(self.allocated(others, plan, context))
                if again := nodes.bad_nodes(plan):
                    refuse_bad(cluster, {**bad, **again}, last=True)
            yield nodes

    @contextmanager
    def allocated(
        self, cluster: ClusterSpec, plan: DeploymentPlan, context: RunContext
    ) -> Iterator[SlurmAllocation]:
        """Yield a running job's nodes, whatever state they are in."""
        site = site_of(cluster)
        prepare_folder(site, context)
        with ExitStack() as stack:
            if job := allocation_around(site):
                held = existing_job(self.client, self.watch, job)
                hosts = stack.enter_context(
                    claimed_nodes(
                        job, self.client.hostnames(held.view.nodes), len(plan.nodes)
                    )
                )
            else:
                partition = partition_of(site, self.client.show("partition"))
                request = job_request(cluster, plan, context)
                held = stack.enter_context(
                    held_job(
                        *(self.client, self.watch, site, request),
                        partition["PartitionName"],
                    )
                )
                hosts = self.client.hostnames(held.view.nodes)
            names = {n.name: h for n, h in zip(plan.nodes, hosts, strict=False)}
            records = self.client.show("node", ",".join(hosts))
            allocation = SlurmAllocation(cluster, context, held.handle, names, records)
            try:
                yield allocation
            finally:
                held.kept = allocation.kept
                allocation.close()

    def clean(self, cluster: ClusterSpec, context: RunContext) -> None:
        """Cancel the holder job of a run, found by its name, which has the run id.

        Steps in an allocation that was there before end with their lease.

        Raises:
            ProvisionError: Slurm does not answer, or does not get rid of it.
        """
        self.client.check()
        for job in self.client.named(job_name(context)):
            handle = JobHandle(job, self.client, self.watch)
            self.watch.add(job)
            end_job(handle)

    def preflight(
        self, cluster: ClusterSpec, plan: DeploymentPlan, run_dir: Path
    ) -> Sequence[Finding]:
        """Look at the nodes of a job of its own, which ends with the look."""
        with looked_at(self.allocated, cluster, plan, run_dir) as allocation:
            busy = allocation.busy_ports(plan)
            return list(node_findings(cluster, plan, allocation.facts(), busy))


def told_bad(bad: Mapping[str, str]) -> str:
    """Return what is wrong with which nodes, as words."""
    return "Bad node " + ", ".join(f"{name} ({why})" for name, why in bad.items())


def refuse_bad(
    cluster: ClusterSpec, bad: Mapping[str, str], *, last: bool = False
) -> None:
    """Refuse bad nodes where no others can be asked for.

    Raises:
        ProvisionError: we run in somebody's allocation, or it is the second job.
    """
    if last or allocation_around(site_of(cluster)):
        names = ", ".join(bad)
        raise ProvisionError(
            f"{told_bad(bad)}.",
            hint=f"slurm.exclude: [{names}], and tell the administrators of the site",
        )


def without_nodes(cluster: ClusterSpec, bad: Iterable[str]) -> ClusterSpec:
    """Return the cluster with more nodes left out."""
    site = site_of(cluster)
    exclude = tuple(dict.fromkeys((*site.exclude, *bad)))
    return cluster.model_copy(
        update={"slurm": site.model_copy(update={"exclude": exclude})}
    )


def prepare_folder(site: SlurmSite, context: RunContext) -> None:
    """Make the run directory, with our programs for the nodes in it.

    Raises:
        ProvisionError: it does not lie on the file system that the site shares.
    """
    shared = expand(os.path.expandvars(str(site.shared_dir or "/")))
    if not context.run_dir.resolve().is_relative_to(shared.resolve()):
        raise ProvisionError(
            f"Run directory {str(context.run_dir)!r} is not below slurm.shared_dir "
            f"{str(shared)!r}, and the nodes would not see it.",
            hint=f"--run-dir {shared}/NAME",
        )
    RunDir(context.run_dir).create()
    folder = slurm_folder(context)
    folder.mkdir(exist_ok=True)
    for program in (launcher, node_facts):
        source = Path(str(program.__file__))
        shutil.copyfile(source, folder / source.name)


def job_name(context: RunContext) -> str:
    """Return the name of the holder job: nobody else has this run id."""
    return f"pd-{context.run_id}-{context.run_dir.name}"


def job_request(
    cluster: ClusterSpec, plan: DeploymentPlan, context: RunContext
) -> JobRequest:
    """Return what the holder job of one topology asks for."""
    return JobRequest(
        name=job_name(context),
        run_id=context.run_id,
        nodes=len(plan.nodes),
        gpus_per_node=cluster.gpus_per_node,
        folder=str(slurm_folder(context)),
        lease=str(context.lease),
        lease_ttl_s=context.lease_ttl_s,
    )
