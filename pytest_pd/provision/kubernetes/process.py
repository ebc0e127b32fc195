"""A service in a pod."""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pd.errors import InfrastructureLost, ProvisionError
from pytest_pd.provision.kubernetes.follow import LogFollower
from pytest_pd.provision.kubernetes.forward import Forward
from pytest_pd.provision.kubernetes.resource import path_in
from pytest_pd.provision.kubernetes.state import PodState, hint_for

if TYPE_CHECKING:
    from pytest_pd.provision.kubernetes.allocation import Cluster

LAST_LOG_S = 5.0
KILLED_S = 30.0
EXEC_S = 30.0
SIGNAL = (
    "for d in /proc/[0-9]*; do p=${d#/proc/}; "
    '[ "$p" = "$$" ] || [ "$p" = "$PPID" ] && continue; '
    "tr '\\0' '\\n' <$d/environ 2>/dev/null | "
    'grep -qxF "PYTEST_PD_SERVICE=$1" && kill -s "$0" "$p"; done; true'
)
"""Signals what carries the mark of the service, and no other process of a node."""


class KubeProcess:
    """One service, which is one pod.

    Attributes:
        follower: Copies its log.
    """

    def __init__(
        self,
        name: str,
        pod: str,
        log: Path,
        cluster: Cluster,
        *,
        mark: str,
        container: str,
        secrets: Iterable[str] = (),
    ) -> None:
        self._name, self.pod, self._log = name, pod, log
        self._cluster = cluster
        self._mark, self._container = mark, container
        self._begun_s = time.monotonic()
        self._ended_s: float | None = None
        self._delayed_s: float | None = None
        self._reported = False
        self.forward: Forward | None = None
        where = (cluster.scope.namespace, pod, container)
        self.follower = LogFollower(cluster.client, cluster.watch, where, log, secrets)

    @property
    def name(self) -> str:
        return self._name

    @property
    def log(self) -> Path:
        return self._log

    @property
    def state(self) -> PodState:
        """The pod as it was last seen."""
        return self._cluster.watch.state(self.pod) or PodState()

    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal; its log is whole by then.

        Raises:
            ProvisionError: its pod will never run, with the cluster's reason.
            InfrastructureLost: the cluster took its pod away, or the API server has
                not answered for too long.
        """
        state = self.state
        self._refuse_lost(state)
        if state.code is None:
            self._refuse_hopeless(state)
            self._cluster.watch.check()
            return None
        if self._ended_s is None:
            self._ended_s = time.monotonic()
        late = time.monotonic() - self._ended_s > LAST_LOG_S
        if not self.follower.done.is_set() and not late:
            return None
        self._report(state)
        return state.code

    def _refuse_lost(self, state: PodState) -> None:
        if not state.lost:
            return
        if not self._reported:
            self._reported = True
            self.follower.say(f"was taken away: {state.lost}")
        at = f" on node {state.node!r}" if state.node else ""
        raise InfrastructureLost(
            f"The cluster took pod {self.pod!r} ({self._name}){at} away: {state.lost}",
            hint="kubectl describe node; it says nothing about the service",
            where=self._log,
        )

    def _report(self, state: PodState) -> None:
        """Say once, where the user looks, how the cluster tells of the end."""
        if self._reported or not state.code:
            self._reported = True
            return
        self._reported = True
        word = "ERROR cannot start" if "StartError" in state.why else "ended"
        self.follower.say(f"{word}: {state.describe()}")

    def _refuse_hopeless(self, state: PodState) -> None:
        about = state.hopeless or self._overdue(state)
        if not about:
            return
        kind = "image" if "image" in about else state.hopeless
        raise ProvisionError(
            f"Pod {self.pod!r} ({self._name}) cannot run: {about}. "
            f"The cluster says: {state.why or 'nothing'}.",
            hint=hint_for(kind)
            or hint_for(state.why)
            or f"kubectl describe pod -n {self._cluster.scope.namespace} {self.pod}",
            where=self._log,
        )

    def _overdue(self, state: PodState) -> str:
        """Return what a pod waits for that has had its time; empty before that."""
        budget_s, now_s = self._cluster.site.schedule_s, time.monotonic()
        if state.delayed:
            self._delayed_s = self._delayed_s or now_s
            late = now_s - self._delayed_s > budget_s
            return f"{state.delayed}, for {budget_s:g} s now" if late else ""
        unplaced = state.phase == "Pending" and not state.node
        late = unplaced and now_s - self._begun_s > budget_s
        return f"no node took it within {budget_s:g} s" if late else ""

    def identity(self) -> Mapping[str, str | int]:
        """Return namespace, name, uid, node, image and own address of the pod."""
        self._cluster.watch.wait(self.pod, lambda s: bool(s and s.uid), LAST_LOG_S)
        state = self.state
        found = {
            "namespace": self._cluster.scope.namespace,
            "pod": self.pod,
            "uid": state.uid,
            "node": state.node,
            "image": state.image,
            "address": state.ip,
        }
        return {name: value for name, value in found.items() if value}

    def stop(self, *, grace_s: float) -> None:
        """Delete the pod; return when it and all that it ran is gone.

        Raises:
            ProvisionError: it is still there long after its grace.
        """
        if self.forward is not None:
            self.forward.close()
        path = path_in(self._cluster.scope.namespace, "Pod", self.pod)
        # zero means by force: the object goes before the node has ended the process
        grace = max(1, math.ceil(grace_s))
        if self._cluster.client.delete(path, grace_s=grace):
            self._await_gone(grace_s + KILLED_S)
        self.follower.done.wait(LAST_LOG_S)
        self.follower.close()

    def _await_gone(self, seconds: float) -> None:
        is_gone = self._cluster.watch.wait(
            self.pod, lambda state: state is not None and state.phase == "Gone", seconds
        )
        if not is_gone:
            raise ProvisionError(
                f"Pod {self.pod!r} is still there {seconds:g} s after it was deleted.",
                hint="its node may be gone: kubectl delete pod --force "
                f"-n {self._cluster.scope.namespace} {self.pod}",
            )

    def kill(self, signal: int) -> None:
        """Send a signal to every process of the service, by ``kubectl exec``.

        Raises:
            ProvisionError: it did not get there.
        """
        words = [
            *self._cluster.client.words,
            *("exec", "-n", self._cluster.scope.namespace, self.pod),
            *("-c", self._container, "--"),
            *("sh", "-c", SIGNAL, str(int(signal)), self._mark),
        ]
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, timeout=EXEC_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise InfrastructureLost(
                f"Signal {signal} did not reach pod {self.pod!r}: kubectl exec did not "
                f"answer within {EXEC_S:g} s.",
                hint="kubectl describe node shows whether its node answers",
                where=self._log,
            ) from error
        if done.returncode and self.state.code is None:
            said = done.stderr.strip() or f"exit code {done.returncode}"
            # the signal ends the container, and with it the shell that sends it
            if "137" not in said and "terminated" not in said:
                raise ProvisionError(
                    f"Signal {signal} did not reach pod {self.pod!r}: {said}."
                )
