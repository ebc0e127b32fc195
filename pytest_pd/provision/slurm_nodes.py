"""Nodes of one Slurm job: what they are called, what they say, services on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from pytest_pd.errors import InfrastructureLost, ProvisionError
from pytest_pd.installer.paths import search_path
from pytest_pd.plan.model import DeploymentPlan, ServicePlan
from pytest_pd.provision import launcher
from pytest_pd.provision.base import RunContext
from pytest_pd.provision.local import launch_request, mark_of
from pytest_pd.provision.node_lines import read_facts
from pytest_pd.provision.preflight_nodes import bad_nodes
from pytest_pd.provision.rundir import RunDir
from pytest_pd.provision.slurm_client import last_line
from pytest_pd.provision.slurm_image import ImageFile, imported, is_registry
from pytest_pd.provision.slurm_step import JobHandle, SlurmStep, encode, start_step
from pytest_pd.provision.slurm_text import (
    container_options,
    gpu_options,
    step_argv,
    step_env,
    step_name,
)
from pytest_pd.provision.wire import Wire, wire_of
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.site_slurm import SlurmSite

VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


class SlurmAllocation:
    """Nodes of one job, ours for the time of one deployment."""

    def __init__(
        self,
        cluster: ClusterSpec,
        context: RunContext,
        handle: JobHandle,
        nodes: Mapping[str, str],
        records: Sequence[Mapping[str, str]],
    ) -> None:
        self._cluster = cluster
        self._site = site_of(cluster)
        self._context = context
        self._run = RunDir(context.run_dir)
        self._handle = handle
        self._nodes = nodes
        self._records = {r["NodeName"]: r for r in records}
        self._steps: list[SlurmStep] = []
        self._facts: dict[str, dict[str, object]] = {}
        self._images: dict[str, ImageFile] = {}
        self.kept = False

    @property
    def run_dir(self) -> str:
        return str(self._context.run_dir)

    @property
    def python(self) -> str:
        return self._site.package_python or sys.executable

    @property
    def job(self) -> str:
        """The Slurm job id."""
        return self._handle.job

    def seconds_left(self) -> float | None:
        """Return the seconds to the job's time limit; None when it has none."""
        return self._handle.watch.seconds_left(self.job)

    def load_command(self, node: str) -> tuple[str, ...]:
        """Return words that run Python with this package on a planned node."""
        return (
            *("srun", f"--jobid={self.job}", "--overlap", "--nodes=1", "--ntasks=1"),
            *(f"--nodelist={self._nodes[node]}", "--job-name=pd-bench"),
            *("--export=ALL", "--unbuffered", "--kill-on-bad-exit=1"),
            *([] if self._site.gpus_by == "none" else ["--gres=none"]),
            self.python,
        )

    def load_env(self) -> Mapping[str, str]:
        """Return the environment of that command, marked as the run's own."""
        mark = mark_of(self._context, "bench")
        return {**step_env(os.environ), launcher.MARK: mark}

    def addresses(self, plan: DeploymentPlan) -> Mapping[str, str]:
        """Planned node name to the address that the site's file asks for."""
        return {name: self._address(host) for name, host in self._nodes.items()}

    def _address(self, host: str) -> str:
        kind, _, interface = self._site.address.partition(":")
        if kind == "node_name":
            return host
        if kind == "node_addr":
            return self._records.get(host, {}).get("NodeAddr", host)
        found = self.facts().get(host, {}).get("addresses", {})
        if isinstance(found, dict) and interface in found:
            return str(found[interface])
        raise ProvisionError(
            f"Node {host!r} has no interface {interface!r} with an IPv4 address.",
            hint=f"it has {found}; correct slurm.address",
        )

    def busy_ports(self, plan: DeploymentPlan) -> frozenset[tuple[str, int]]:
        """Ask every node which of its planned ports somebody listens on."""
        by_host = {host: name for name, host in self._nodes.items()}
        addresses = self.addresses(plan)
        ports: dict[str, list[tuple[str, int]]] = {}
        for service in plan.services:
            mine = ports.setdefault(self._nodes[service.node], [])
            mine += [(addresses[service.node], p) for p in service.ports.values()]
        self._facts = self._ask({h: {"ports": p} for h, p in ports.items()})
        return frozenset(
            (by_host[host], port)
            for host, facts in self._facts.items()
            for _, port in facts["busy"]  # type: ignore[attr-defined]
        )

    def facts(self) -> dict[str, dict[str, object]]:
        """Return what every node says about itself; asked once."""
        if not self._facts:
            self._facts = self._ask({})
        return self._facts

    def bad_nodes(self, plan: DeploymentPlan) -> dict[str, str]:
        """Return what is wrong with nodes of the job that cannot serve the plan."""
        if not plan.gpus or plan.rehearsal:
            return {}
        return bad_nodes(self._cluster, self.facts())

    def wire(self) -> Wire:
        """Return what the nodes have received so far, by way."""
        return wire_of(self._ask({}, wire=True).values())

    def _ask(
        self, each: Mapping[str, object], *, wire: bool = False
    ) -> dict[str, dict[str, object]]:
        """Run `node_facts` on every node, and make sure that all see our files.

        Raises:
            ProvisionError: the run directory of a node is another one.
            InfrastructureLost: a node does not answer in time; names it.
        """
        nonce = self.folder / "nonce"
        run_id = self._context.run_id
        nonce.write_text(run_id)
        request = {
            "nodes": each,
            "nonce": str(nonce),
            "disk": str(nonce.parent),
            "gpus": not wire,
            "wire": wire,
        }
        hosts = sorted(set(self._nodes.values()))
        done = self._once(hosts, "node_facts.py", json.dumps(request))
        found = read_facts(done.stdout)
        sees = {host: facts.get("nonce") for host, facts in found.items()}
        if blind := [h for h in hosts if sees.get(h, run_id) != run_id]:
            raise ProvisionError(
                f"{', '.join(blind)} cannot see {self.run_dir!r}.",
                hint="choose a --run-dir on a file system that all nodes share",
            )
        if silent := [h for h in hosts if h not in found]:
            raise InfrastructureLost(
                f"{', '.join(silent)} of Slurm job {self.job} gave no answer: "
                f"{last_line(done.stderr)}",
                hint=f"is {self.python!r} there, is {self.run_dir!r} shared, and is "
                "slurm.node_answer_s longer than the site's prolog?",
            )
        return found

    def _once(
        self, hosts: Sequence[str], program: str, stdin: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one of our programs once on each host."""
        argv = [
            *("srun", f"--jobid={self.job}", "--overlap", f"--nodes={len(hosts)}"),
            *(f"--ntasks={len(hosts)}", "--ntasks-per-node=1", "--export=ALL"),
            *(f"--nodelist={','.join(hosts)}", "--job-name=pd-facts"),
            *gpu_options(self._site, self._cluster.gpus_per_node),
            *(self.python, "-S", "-E", str(self.folder / program)),
        ]
        return self._handle.client.run(
            *argv,
            stdin=stdin,
            env=step_env(os.environ),
            within_s=self._site.node_answer_s,
        )

    @property
    def folder(self) -> Path:
        """Files for the nodes: programs of ours, the holder's log."""
        return slurm_folder(self._context)

    def start(self, service: ServicePlan) -> SlurmStep:
        """Start the service as a step of its own on its node.

        Raises:
            ProvisionError: a secret that it needs is not in the environment.
        """
        host = self._nodes[service.node]
        service = self._from_file(service, host)
        request = launch_request(service, self._context)
        if not container_options(self._site.container, service, ""):
            # engines of our cache are found on nodes too; an image has its own PATH
            request["env"].setdefault("PATH", search_path())
        for name in VISIBLE:
            if name in request["env"]:
                request["env"][name] = self._visible(host, request["env"][name])
        log = self._context.run_dir / service.log
        log.parent.mkdir(parents=True, exist_ok=True)
        for old in (self._run.started(service.name), self._run.ended(service.name)):
            old.unlink(missing_ok=True)
        name = step_name(request["mark"])
        argv = step_argv(
            self._site,
            self.job,
            host,
            service,
            name=name,
            node_gpus=self._cluster.gpus_per_node,
            folder=self.run_dir,
            command=(self.python, "-S", "-E", str(self.folder / "launcher.py")),
        )
        said = self.folder / f"{service.name}.srun.log"
        mark = {launcher.MARK: request["mark"]}
        popen = start_step(argv, encode(request), said, mark)
        self._handle.forget_steps()
        step = SlurmStep(
            service.name,
            host,
            log,
            said,
            self._run,
            step=name,
            handle=self._handle,
            popen=popen,
            send=self._send,
        )
        self._steps.append(step)
        return step

    def _from_file(self, service: ServicePlan, host: str) -> ServicePlan:
        """Return the service with its image as a file, where the site wants that."""
        given = self._site.container
        image = service.image or (given.image if given else None)
        if not (given and given.import_to and image and is_registry(image)):
            return service
        if image not in self._images:
            client = self._handle.client
            found = imported(client, self._site, self.job, host, image)
            self._images[image] = found
            told = {name: asdict(file) for name, file in self._images.items()}
            self._run.write_manifest(images=told)
        return replace(service, image=self._images[image].path)

    def _visible(self, host: str, planned: str) -> str:
        """Turn GPU ids of the plan into those that Slurm gave us on this node."""
        found = self.facts().get(host, {}).get("visible")
        given = [str(i) for i in found] if isinstance(found, list) else []
        ids = [int(i) for i in planned.split(",") if i.isdigit()]
        if not given or not ids:
            return planned
        if max(ids) >= len(given):
            raise ProvisionError(
                f"The plan uses GPU {max(ids)} of {host!r}; Slurm gave the job "
                f"{len(given)} there: {', '.join(given)}.",
                hint="correct gpus_per_node of the cluster file",
            )
        return ",".join(given[i] for i in ids)

    def _send(self, host: str, pid: int, start_time: int, number: int) -> None:
        """Signal everything below a launcher on its node, if it is still that one.

        Args:
            start_time: Of the launcher, in ticks since boot.

        Raises:
            ProvisionError: srun could not.
        """
        code = (
            f"import sys; sys.path.insert(0, {str(self.folder)!r}); import launcher;"
            f"alive = launcher.start_time({pid}) == {start_time};"
            f"launcher.send(launcher.descendants({pid}) if alive else [], {number})"
        )
        done = self._handle.client.run(
            *("srun", f"--jobid={self.job}", "--overlap", "--nodes=1", "--ntasks=1"),
            *(f"--nodelist={host}", "--job-name=pd-signal"),
            *([] if self._site.gpus_by == "none" else ["--gres=none"]),
            *(self.python, "-S", "-E", "-c", code),
        )
        if done.returncode:
            raise ProvisionError(
                f"Signal {number} did not reach {host} in Slurm job {self.job}: "
                f"{last_line(done.stderr)}",
                hint="may this user start steps beside others there (--overlap)?",
            )

    def keep(self) -> None:
        """Leave everything running when the block ends: the lease ends it."""
        self.kept = True

    def close(self) -> None:
        """End every step that still runs, newest first, unless they are kept."""
        for step in reversed(self._steps):
            if self.kept:
                step.disown()
            else:
                step.stop(grace_s=0.0)


def site_of(cluster: ClusterSpec) -> SlurmSite:
    """Return the cluster file's ``slurm:`` section, or one of defaults."""
    return cluster.slurm or SlurmSite()


def slurm_folder(context: RunContext) -> Path:
    """Return the folder of what only the backend needs."""
    return context.run_dir / "slurm"
