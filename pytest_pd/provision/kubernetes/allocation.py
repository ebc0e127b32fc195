"""A place in a cluster for one deployment: names first, then pods one by one."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from pytest_pd.errors import ProvisionError
from pytest_pd.plan.model import DeploymentPlan, ServicePlan
from pytest_pd.provision.base import RunContext
from pytest_pd.provision.kubernetes.client import KubeClient
from pytest_pd.provision.kubernetes.diagnose import diagnose
from pytest_pd.provision.kubernetes.follow import end_all
from pytest_pd.provision.kubernetes.forward import (
    FORWARDS,
    Forward,
    is_free,
    take_block,
)
from pytest_pd.provision.kubernetes.guard import guard, lease
from pytest_pd.provision.kubernetes.helper import KEEP, RELAY, Helper
from pytest_pd.provision.kubernetes.load_pod import start as start_load_pod
from pytest_pd.provision.kubernetes.manifest import (
    namespace,
    of_service,
    secret,
    setting_of,
    shared,
)
from pytest_pd.provision.kubernetes.names import (
    Scope,
    addresses,
    pod_name,
)
from pytest_pd.provision.kubernetes.pod import RUN_DIR, container_name
from pytest_pd.provision.kubernetes.process import KubeProcess
from pytest_pd.provision.kubernetes.relay import now_text
from pytest_pd.provision.kubernetes.sweep import sweep
from pytest_pd.provision.kubernetes.watch import PodWatch
from pytest_pd.provision.launcher import write_json
from pytest_pd.provision.local import mark_of, secrets_of, service_env
from pytest_pd.provision.rundir import RunDir
from pytest_pd.spec.site_kubernetes import KubernetesSite

LAST_LOGS_S = 5.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """What every part of one deployment asks: the API, its pods, where they lie."""

    client: KubeClient
    watch: PodWatch
    site: KubernetesSite
    scope: Scope


class KubeAllocation:
    """A namespace, or a corner of one, ours for the time of one deployment."""

    def __init__(
        self,
        client: KubeClient,
        site: KubernetesSite,
        scope: Scope,
        plan: DeploymentPlan,
        context: RunContext,
    ) -> None:
        watch = PodWatch(
            client, scope.namespace, scope.selector, lost_s=context.lease_ttl_s
        )
        self.cluster = Cluster(client, watch, site, scope)
        self._plan, self._context = plan, context
        self._run = RunDir(context.run_dir)
        self._block = 0
        self._held: socket.socket | None = None
        self._processes: list[KubeProcess] = []
        self._secrets: dict[str, str] = {}
        self._relay: Helper | None = None
        self._log = context.run_dir / "kubectl.log"
        self.kept = False

    @property
    def run_dir(self) -> str:
        return RUN_DIR

    @property
    def python(self) -> str:
        return self.cluster.site.python

    def open(self) -> None:
        """Make what there is once: namespace, lease, guard, names, permissions.

        Raises:
            ProvisionError: the cluster refuses, in its own words.
        """
        client, scope = self.cluster.client, self.cluster.scope
        self._start_relay()
        if scope.namespace_is_ours:
            client.apply(namespace(scope))
        owner = client.apply(lease(scope, self._context.lease_ttl_s, now_text()))
        self.cluster = replace(
            self.cluster, scope=replace(scope, owner_uid=owner["metadata"]["uid"])
        )
        for each in guard(self.cluster.scope, self.cluster.site, self._ttl_s):
            client.apply(each)
        for each in shared(self._setting()):
            client.apply(each)
        self.cluster.watch.start()

    @property
    def _ttl_s(self) -> float:
        return self._context.lease_ttl_s

    def _setting(self) -> Any:
        return setting_of(self._plan, self.cluster.site, self.cluster.scope)

    def _start_relay(self) -> None:
        """Start the helper that renews the lease in the cluster, and ends it."""
        scope = self.cluster.scope
        request = {
            "site": self.cluster.site.model_dump(mode="json"),
            "namespace": scope.namespace,
            "name": scope.name,
            "ours": scope.namespace if scope.namespace_is_ours else "",
            "lease": str(self._context.lease),
            "ttl_s": self._ttl_s,
        }
        self._relay = Helper(RELAY, request, self._log)
        self._relay.start()

    def load_command(self, node: str) -> tuple[str, ...]:
        """Return words that run Python in the load pod, which is started for it.

        Empty where the harness sends the load itself.

        Raises:
            ProvisionError: the pod does not start.
        """
        return start_load_pod(self.cluster, self._setting())

    def diagnose(self, plan: DeploymentPlan) -> tuple[str, ...]:
        """Return troubles that have a name, looked for after a failure."""
        setting = setting_of(plan, self.cluster.site, self.cluster.scope)
        return diagnose(self.cluster, setting, self._processes)

    def load_env(self) -> Mapping[str, str]:
        """Return the environment of kubectl."""
        return os.environ

    def addresses(self, plan: DeploymentPlan) -> Mapping[str, str]:
        """Planned node name to the name of its pod in the cluster's DNS."""
        return addresses(plan, self.cluster.scope)

    def reach(self, plan: DeploymentPlan) -> Mapping[str, str]:
        """Planned node name to where the harness finds it: a loopback address."""
        if self.cluster.site.reach == "direct":
            return self.addresses(plan)
        if not self._block:
            ports = {p for s in plan.services for p in s.ports.values()}
            try:
                self._block, self._held = take_block(FORWARDS, ports)
            except OSError as error:
                raise ProvisionError(
                    f"No port-forward is possible: {error}."
                ) from error
        return {
            node.name: f"127.{self._block}.{1 + index // 250}.{1 + index % 250}"
            for index, node in enumerate(plan.nodes)
        }

    def busy_ports(self, plan: DeploymentPlan) -> frozenset[tuple[str, int]]:
        """Pods have addresses of their own: only our ends of forwards can be taken."""
        if self.cluster.site.reach == "direct":
            return frozenset()
        reach = self.reach(plan)
        return frozenset(
            (service.node, port)
            for service in plan.services
            for port in service.ports.values()
            if not is_free(reach[service.node], port)
        )

    def start(self, service: ServicePlan) -> KubeProcess:
        """Apply the service's pod and return at once.

        Raises:
            ProvisionError: a secret is not in the environment, it has no image, or
                the cluster refuses (a quota, a permission), in its own words.
        """
        service_env(service)
        self._bring_secrets(service)
        setting = self._setting()
        name = pod_name(setting.spec, setting.scope, service)
        log = self._context.run_dir / service.log
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        process = KubeProcess(
            service.name,
            name,
            log,
            self.cluster,
            mark=mark_of(self._context, service.name),
            container=container_name(service),
            secrets=secrets_of(service),
        )
        self.cluster.watch.forget(name)
        for each in of_service(setting, service):
            made = self.cluster.client.apply(each)
        self._record(service, name, made["metadata"]["uid"])
        process.follower.start()
        self._forward(process, service)
        self._processes.append(process)
        return process

    def _bring_secrets(self, service: ServicePlan) -> None:
        names = [n for n in service.env_from_host if n not in self._secrets]
        if names:
            self._secrets |= {name: os.environ[name] for name in names}
            self.cluster.client.apply(secret(self.cluster.scope, self._secrets))

    def _record(self, service: ServicePlan, pod: str, uid: str) -> None:
        record = {
            "name": service.name,
            "mark": mark_of(self._context, service.name),
            "namespace": self.cluster.scope.namespace,
            "pod": pod,
            "uid": uid,
            "started_s": time.time(),
        }
        write_json(str(self._run.started(service.name)), record)

    def _forward(self, process: KubeProcess, service: ServicePlan) -> None:
        if self.cluster.site.reach == "direct" or not service.ports:
            return
        process.forward = Forward(
            self.cluster.client.words,
            self.cluster.watch,
            (self.cluster.scope.namespace, process.pod),
            self.reach(self._plan)[service.node],
            service.ports.values(),
            self._log,
        )
        process.forward.start()

    def keep(self) -> None:
        """Leave everything running when the block ends: the lease ends it."""
        self.kept = True

    def close(self) -> None:
        """End and remove everything, unless it is kept; hang up.

        Raises:
            ProvisionError: something of it is still in the cluster.
        """
        try:
            self._write_events()
            if not self.kept:
                if self._relay is not None:
                    self._relay.end()
                sweep(self.cluster.client, self.cluster.scope)
        finally:
            end_all([p.follower for p in self._processes], LAST_LOGS_S)
            for process in self._processes:
                if process.forward is not None:
                    process.forward.close()
            self.cluster.watch.close()
            if self.kept:
                self._leave()
            elif self._relay is not None:
                self._relay.end()
            if self._held is not None:
                self._held.close()

    def _leave(self) -> None:
        """Hand lease and forwards over to processes that outlive us."""
        if self._relay is not None:
            self._relay.leave()
        forwards = [p.forward.what for p in self._processes if p.forward is not None]
        request = {
            "site": self.cluster.site.model_dump(mode="json"),
            "namespace": self.cluster.scope.namespace,
            "selector": self.cluster.scope.selector,
            "forwards": forwards,
            "lease": str(self._context.lease),
            "ttl_s": self._ttl_s,
            "log": str(self._log),
        }
        if forwards:
            fds = () if self._held is None else (self._held.fileno(),)
            keeper = Helper(KEEP, request, self._log)
            keeper.start(fds)
            keeper.leave()

    def _write_events(self) -> None:
        """Keep what the cluster tells of our pods, oldest first."""
        scope = self.cluster.scope
        with suppress(ProvisionError, OSError):
            path = f"/api/v1/namespaces/{scope.namespace}/events"
            items = self.cluster.client.request("GET", path).get("items", [])
            ours = {process.pod for process in self._processes}
            lines = [
                f"{each.get('lastTimestamp') or each.get('eventTime') or ''} "
                f"{each['involvedObject'].get('name')} {each.get('reason')}: "
                f"{each.get('message')}"
                for each in items
                if scope.namespace_is_ours
                or each.get("involvedObject", {}).get("name") in ours
            ]
            text = "\n".join(sorted(lines)) + "\n"
            (self._context.run_dir / "events.txt").write_text(text, encoding="utf-8")
