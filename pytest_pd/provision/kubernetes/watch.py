"""The pods of a deployment, as the API server says they are: one watch for all."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pytest_pd.errors import InfrastructureLost, ProvisionError
from pytest_pd.provision.kubernetes.client import KubeClient
from pytest_pd.provision.kubernetes.resource import path_in
from pytest_pd.provision.kubernetes.state import PodState, state_of

WATCH_S = 60
RETRY_S = 0.5
LOST_S = 2.0 * WATCH_S
"""A watch on which nothing happens is silent for its whole time."""


class PodWatch:
    """Pods by name. A thread keeps it true; it lists again whenever a watch ends."""

    def __init__(
        self, client: KubeClient, namespace: str, selector: str, *, lost_s: float
    ) -> None:
        self._client = client
        self._path = path_in(namespace, "Pod")
        self._selector = selector
        self._lost_s = max(lost_s, LOST_S)
        self._pods: dict[str, PodState] = {}
        self._changed = threading.Condition()
        self._over = threading.Event()
        self._heard_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="pd-pods", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """Stop watching; the thread ends with its connection."""
        self._over.set()

    def state(self, name: str) -> PodState | None:
        """Return the last known state of a pod, None when it was never seen."""
        with self._changed:
            return self._pods.get(name)

    def forget(self, name: str) -> None:
        """Forget a pod that is made again under its old name."""
        with self._changed:
            self._pods.pop(name, None)

    def check(self) -> None:
        """Raise `InfrastructureLost` if nothing was heard for too long."""
        silent_s = time.monotonic() - self._heard_s
        if silent_s > self._lost_s:
            raise InfrastructureLost(
                f"The API server has not answered for {silent_s:.0f} s: what the pods "
                "do cannot be told.",
                hint="kubectl get pods; the lease in the cluster ends them there",
            )

    def wait(
        self, name: str, holds: Callable[[PodState | None], bool], seconds: float
    ) -> bool:
        """Wait until a pod's state is as wanted; False when time is over."""
        with self._changed:
            return self._changed.wait_for(
                lambda: holds(self._pods.get(name)), max(0.0, seconds)
            )

    def _run(self) -> None:
        while not self._over.is_set():
            with suppress(
                OSError, ValueError, http.client.HTTPException, ProvisionError
            ):
                self._follow(self._list())
            self._over.wait(RETRY_S)

    def _list(self) -> str:
        answer = self._client.request(
            "GET", self._path, query={"labelSelector": self._selector}
        )
        pods = {pod["metadata"]["name"]: state_of(pod) for pod in answer["items"]}
        with self._changed:
            for name in self._pods.keys() - pods.keys():
                self._pods[name] = gone(self._pods[name])
            self._pods |= pods
            self._changed.notify_all()
        self._heard_s = time.monotonic()
        return str(answer["metadata"]["resourceVersion"])

    def _follow(self, version: str) -> None:
        query = {
            "labelSelector": self._selector,
            "watch": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_S),
        }
        with self._client.stream(self._path, query, silent_s=WATCH_S + 10) as events:
            while not self._over.is_set() and (line := events.readline()):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                self._note(event["type"], event["object"])
                self._heard_s = time.monotonic()
            self._heard_s = time.monotonic()  # the server ended it, in its time

    def _note(self, kind: str, pod: dict[str, Any]) -> None:
        if kind not in ("ADDED", "MODIFIED", "DELETED"):
            return
        state = state_of(pod)
        with self._changed:
            name = pod["metadata"]["name"]
            self._pods[name] = gone(state) if kind == "DELETED" else state
            self._changed.notify_all()


def gone(state: PodState) -> PodState:
    """Return the state of a pod that somebody deleted: it was killed."""
    code = -9 if state.code is None else state.code
    why = state.why or "the pod was deleted"
    return replace(state, phase="Gone", ready=False, code=code, why=why)
