"""This machine as a backend: one launcher per service, each in its own session."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from pytest_pd.errors import ProvisionError
from pytest_pd.installer.paths import search_path
from pytest_pd.plan.model import DeploymentPlan, ServicePlan
from pytest_pd.provision import launcher
from pytest_pd.provision.base import Allocation, Finding, RunContext
from pytest_pd.provision.identity import Identity, kill_all, marked_with
from pytest_pd.provision.lease import disown
from pytest_pd.provision.looking import refuse_images
from pytest_pd.provision.ports import PortClaims
from pytest_pd.provision.preflight import local_findings
from pytest_pd.provision.rundir import RunDir, read_record
from pytest_pd.secret import secrets_in
from pytest_pd.spec.cluster import ClusterSpec

LOG_CAP_BYTES = 256 * 2**20
POLL_S = 0.2
KILLED_S = 10.0
LOOK_S = 0.02


class LocalProcess:
    """A service of this machine, known by the records of its launcher.

    The handle works the same for a service that this process started and for one
    that it found in the run directory of another.
    """

    def __init__(
        self,
        name: str,
        log: Path,
        run: RunDir,
        *,
        mark: str,
        popen: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self._name = name
        self._log = log
        self._run = run
        self._popen = popen
        self._mark = mark
        self._code: int | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def log(self) -> Path:
        return self._log

    @property
    def launcher(self) -> Identity:
        """The launcher: when it is gone, all of the service is gone."""
        if self._popen is not None:
            return Identity.of(self._popen.pid)
        return Identity.read(self._record(), "launcher_")

    def identity(self) -> Mapping[str, str | int]:
        """Return pid, start time, boot and host of the service itself."""
        return Identity.read(self._record()).record()

    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal."""
        if self._code is None:
            running = self._launcher_runs()
            ended = read_record(self._run.ended(self._name))
            if "exit_code" in ended:
                self._code = int(ended["exit_code"])
            elif not running:
                self._code = self._launcher_code()
        return self._code

    def stop(self, *, grace_s: float) -> None:
        """End the service and all that it started.

        Raises:
            ProvisionError: something of it lives on although it was killed.
        """
        if grace_s > 0:
            self._signal_launcher(signal.SIGTERM)
            self._wait(grace_s)
        self._signal_launcher(signal.SIGUSR1)
        if not self._wait(KILLED_S):
            self._signal_launcher(signal.SIGKILL)
            self._wait(KILLED_S)
        kill_all(self._name, self._strays)

    def kill(self, signal: int) -> None:
        """Signal the service and everything below it, not its launcher."""
        if self._launcher_runs():
            launcher.send(launcher.descendants(self.launcher.pid), signal)

    def disown(self) -> None:
        """Let it outlive this process."""
        if self._popen is not None:
            disown(self._popen)

    def _record(self) -> dict[str, object]:
        return read_record(self._run.started(self._name))

    def _launcher_runs(self) -> bool:
        if self._popen is not None:
            return self._popen.poll() is None
        return self.launcher.is_alive

    def _launcher_code(self) -> int:
        """The launcher went without a record: somebody killed it."""
        code = self._popen.returncode if self._popen is not None else None
        return code or -signal.SIGKILL

    def _signal_launcher(self, number: int) -> None:
        if self._launcher_runs():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.launcher.pid, number)

    def _wait(self, seconds: float) -> bool:
        """Wait until the launcher, and so all of the service, is gone."""
        end_s = time.monotonic() + seconds
        while self._launcher_runs():
            if time.monotonic() > end_s:
                return False
            time.sleep(LOOK_S)
        return True

    def _strays(self) -> set[int]:
        """Return what a killed launcher left, proven by its mark or its start time."""
        main = Identity.read(self._record())
        return set(marked_with(self._mark)) | ({main.pid} if main.is_alive else set())


class LocalAllocation:
    """This machine, ours for the time of one deployment."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._run = RunDir(context.run_dir)
        self._claims = PortClaims()
        self._processes: list[LocalProcess] = []
        self._kept = False

    @property
    def run_dir(self) -> str:
        return str(self._context.run_dir)

    @property
    def python(self) -> str:
        return sys.executable

    def addresses(self, plan: DeploymentPlan) -> Mapping[str, str]:
        """One node is 127.0.0.1; of several each has a loopback address."""
        return loopback_addresses(plan)

    def busy_ports(self, plan: DeploymentPlan) -> frozenset[tuple[str, int]]:
        """Claim every port of the plan; return those that others hold."""
        addresses = self.addresses(plan)
        return frozenset(
            (service.node, port)
            for service in plan.services
            for port in service.ports.values()
            if not self._claims.claim(addresses[service.node], port)
        )

    def start(self, service: ServicePlan) -> LocalProcess:
        """Start the service under a launcher of its own.

        Raises:
            ProvisionError: its program is not on this machine, or a secret that it
                needs is not in the environment.
        """
        request = launch_request(service, self._context)
        request["env"].setdefault("PATH", search_path())
        refuse_missing_program(service, request["env"])
        log = self._context.run_dir / service.log
        log.parent.mkdir(parents=True, exist_ok=True)
        for old in (self._run.started(service.name), self._run.ended(service.name)):
            old.unlink(missing_ok=True)
        popen = start_launcher(request, log)
        process = LocalProcess(
            service.name, log, self._run, popen=popen, mark=request["mark"]
        )
        self._processes.append(process)
        return process

    def keep(self) -> None:
        """Leave everything running when the block ends: the lease ends it."""
        self._kept = True

    def close(self) -> None:
        """End whatever still runs, newest first, unless it is kept.

        Raises:
            ProvisionError: something lives on although it was killed.
        """
        self._claims.close()
        if self._kept:
            for process in self._processes:
                process.disown()
            return
        mark = mark_of(self._context)
        with contextlib.ExitStack() as stack:
            stack.callback(kill_all, mark, lambda: set(marked_with(mark)))
            for process in self._processes:
                stack.callback(process.stop, grace_s=0.0)


class LocalBackend:
    """Starts services on this machine."""

    @property
    def name(self) -> str:
        return "local"

    def check(self, cluster: ClusterSpec, plans: Sequence[DeploymentPlan]) -> None:
        """Refuse containers: this backend starts programs.

        Raises:
            ProvisionError: a plan names an image.
        """
        refuse_images(self.name, plans)

    def preflight(
        self, cluster: ClusterSpec, plan: DeploymentPlan, run_dir: Path
    ) -> Sequence[Finding]:
        """Look at this machine as every node of the plan."""
        return list(local_findings(plan, loopback_addresses(plan)))

    @contextmanager
    def allocate(
        self, cluster: ClusterSpec, plan: DeploymentPlan, context: RunContext
    ) -> Iterator[Allocation]:
        """Yield this machine; when the block ends nothing of the run is left."""
        RunDir(context.run_dir).create()
        allocation = LocalAllocation(context)
        try:
            yield allocation
        finally:
            allocation.close()


def loopback_addresses(plan: DeploymentPlan) -> Mapping[str, str]:
    """Return an address of this machine for each node of a plan.

    A rehearsal takes the ports of the real thing: addresses that nobody else uses.
    """
    names = [node.name for node in plan.nodes]
    if len(names) == 1 and not plan.rehearsal:
        return {names[0]: "127.0.0.1"}
    return {
        name: f"127.0.{1 + index // 250}.{1 + index % 250}"
        for index, name in enumerate(names)
    }


class LaunchRequest(TypedDict):
    """What `launcher.py` reads."""

    name: str
    mark: str
    argv: list[str]
    env: dict[str, str]
    env_unset: list[str]
    cwd: str | None
    log: str
    log_cap_bytes: int
    state: str
    lease: str
    ttl_s: float
    poll_s: float
    grace_s: float
    secrets: list[str]


def mark_of(context: RunContext, service: str = "") -> str:
    """Return the mark of one service, or the beginning that all of a run share."""
    return f"{context.run_id}/{context.run_dir.name}/{service}"


def launch_request(service: ServicePlan, context: RunContext) -> LaunchRequest:
    """Return what `launcher.py` reads; holds secrets, so it goes through a pipe.

    Raises:
        ProvisionError: a secret is not in the harness's environment.
    """
    return {
        "name": service.name,
        "mark": mark_of(context, service.name),
        "argv": list(service.argv),
        # setproctitle, which vLLM uses, would else write a title over the mark
        "env": {"SPT_NOENV": "1", **service_env(service)},
        "env_unset": list(service.env_unset),
        "cwd": None,
        "log": str(context.run_dir / service.log),
        "log_cap_bytes": LOG_CAP_BYTES,
        "state": str(RunDir(context.run_dir).state),
        "lease": str(context.lease),
        "ttl_s": context.lease_ttl_s,
        "poll_s": min(POLL_S, context.lease_ttl_s / 10),
        "grace_s": service.stop_grace_s,
        "secrets": list(secrets_of(service)),
    }


def service_env(service: ServicePlan) -> dict[str, str]:
    """Return the variables set on top of the inherited ones.

    Raises:
        ProvisionError: a secret is not in the harness's environment.
    """
    env = dict(service.env)
    for name in service.env_from_host:
        if name not in os.environ:
            raise ProvisionError(
                f"{service.name} needs the variable {name!r}, which is not set here.",
                hint=f"export {name}=... before pytest; its value is written nowhere",
            )
        env[name] = os.environ[name]
    if service.gpu_ids and "CUDA_VISIBLE_DEVICES" not in env:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, service.gpu_ids))
    return env


def secrets_of(service: ServicePlan) -> tuple[str, ...]:
    """Return what a service may print and nobody may read, longest first.

    Its variables from the host are secret whatever they are called.
    """
    environ = {**os.environ, **service.env}
    return secrets_in(environ, also=service.env_from_host)


def refuse_missing_program(service: ServicePlan, env: Mapping[str, str]) -> None:
    """Raise `ProvisionError` if the program of a service is not on this machine."""
    word = service.argv[0]
    if shutil.which(word, path=env.get("PATH")) is None:
        place = "is not an executable file" if "/" in word else "is not on PATH"
        raise ProvisionError(
            f"{service.name}: {word!r} {place}.",
            hint="activate the environment it is installed in, "
            "or set engine.executable (router alike) to its path",
        )


def start_launcher(request: LaunchRequest, log: Path) -> subprocess.Popen[bytes]:
    """Start a launcher in a session of its own and hand it the request.

    Raises:
        ProvisionError: this machine refuses another process or file.
    """
    try:
        log.touch(mode=0o600)
        with log.open("ab") as sink:
            popen = subprocess.Popen(
                [sys.executable, "-S", "-E", launcher.__file__],
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=sink,
                env={**os.environ, launcher.MARK: request["mark"]},
                start_new_session=True,
                close_fds=True,
            )
    except OSError as error:
        raise ProvisionError(
            f"{request['name']}: its launcher cannot be started: {error}.",
            hint="look at ulimit -u, free memory and the disk",
            where=log,
        ) from error
    assert popen.stdin is not None
    with contextlib.suppress(BrokenPipeError), popen.stdin as pipe:
        pipe.write(json.dumps(request).encode("ascii"))
    return popen
