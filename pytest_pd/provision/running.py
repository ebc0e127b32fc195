"""The processes that were started so far, and how they are taken away."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from pytest_pd.errors import ProvisionError
from pytest_pd.plan.model import DeploymentPlan, ServicePlan
from pytest_pd.provision.base import Allocation, Process

DIGEST = "@sha256:"


@dataclass(slots=True)
class Running:
    """The processes started so far, and how they are taken away."""

    processes: dict[str, Process] = field(default_factory=dict)
    services: dict[str, ServicePlan] = field(default_factory=dict)
    kept: bool = False

    def revive(self, allocation: Allocation, name: str) -> None:
        """Start a service anew, with the same plan; what is left of it goes first.

        Raises:
            ProvisionError: it cannot be started.
        """
        self.processes[name].stop(grace_s=0.0)
        self.processes[name] = allocation.start(self.services[name])

    def pinned(self, plan: DeploymentPlan) -> DeploymentPlan:
        """Return the plan with the images that really run, by digest where known."""
        return replace(plan, services=tuple(map(self._with_digest, plan.services)))

    def _with_digest(self, service: ServicePlan) -> ServicePlan:
        if not service.image or service.name not in self.processes:
            return service
        found = str(self.processes[service.name].identity().get("image", ""))
        image = found.rpartition("://")[2]  # some runtimes say docker-pullable://
        return replace(service, image=image) if DIGEST in image else service

    def stop(self) -> None:
        """Stop what nothing depends on first; what is independent side by side.

        A second Ctrl-C ends the patience: everything is killed at once.
        """
        if self.kept:
            return
        try:
            for wave in waves(self.services):
                self._stop_wave(wave)
        except KeyboardInterrupt:
            for process in self.processes.values():
                process.stop(grace_s=0.0)
            raise

    def _stop_wave(self, wave: list[str]) -> None:
        graces = [self.services[name].stop_grace_s for name in wave]
        with ThreadPoolExecutor(len(wave), thread_name_prefix="pd-stop") as pool:
            stops = [
                pool.submit(self.processes[name].stop, grace_s=grace_s)
                for name, grace_s in zip(wave, graces, strict=True)
            ]
        failures = [str(e) for stop in stops if (e := stop.exception()) is not None]
        if failures:
            raise ProvisionError(
                f"{len(failures)} service(s) could not be stopped: {failures[0]}",
                hint="pytest-pd reap",
            )


def waves(services: Mapping[str, ServicePlan]) -> list[list[str]]:
    """Group names so that everything is stopped before what it waited for."""
    left, found = dict(services), []
    while left:
        needed = {name for service in left.values() for name in service.after}
        wave = [name for name in reversed(left) if name not in needed] or [*left]
        found.append(wave)
        for name in wave:
            del left[name]
    return found
