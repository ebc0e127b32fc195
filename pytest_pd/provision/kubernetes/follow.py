"""A pod's log into a file of the run directory, while it is written."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pytest_pd.errors import ProvisionError
from pytest_pd.provision.kubernetes.client import KubeClient
from pytest_pd.provision.kubernetes.resource import path_in
from pytest_pd.provision.kubernetes.state import PodState
from pytest_pd.provision.kubernetes.watch import PodWatch
from pytest_pd.provision.masking import Masker

CHUNK = 65536
RETRY_S = 0.2
STAMP = "%Y-%m-%d %H:%M:%S"


class LogFollower:
    """Copies one container's log; what the cluster says of its pod stands there too.

    After a dropped connection the log is read again from its beginning, and what was
    copied before is skipped. No launcher masks secrets in a pod: they are masked here.
    """

    def __init__(
        self,
        client: KubeClient,
        watch: PodWatch,
        pod: tuple[str, str, str],
        log: Path,
        secrets: Iterable[str] = (),
    ) -> None:
        self._client = client
        self._watch = watch
        self._namespace, self._pod, self._container = pod
        self._log = log
        self._copied = 0
        self._secrets = tuple(secrets)
        self._masker = Masker(self._secrets)
        self._said = ""
        self._over = threading.Event()
        self.done = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"pd-log-{self._pod}", daemon=True
        )

    def start(self) -> None:
        """Begin to copy."""
        self._thread.start()

    def close(self) -> None:
        """Stop copying."""
        self._over.set()

    def say(self, text: str) -> None:
        """Write a line of our own where the user looks."""
        line = f"{time.strftime(STAMP)} pytest-pd: pod {self._pod} {text}\n"
        with self._log.open("ab") as file:
            # a cluster tells the end of a container by the end of its log
            masker = Masker(self._secrets)
            file.write(masker.feed(line.encode()) + masker.flush())

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                state = self._watch.state(self._pod)
                if state is not None and self._has_log(state):
                    whole = self._copy()
                    # asked again: it may have ended after its log was read
                    if whole and state.code is not None:
                        break
                self._over.wait(RETRY_S)
        finally:
            self._end()
            self.done.set()

    def _end(self) -> None:
        with suppress(OSError), self._log.open("ab") as file:
            file.write(self._masker.flush())

    def _has_log(self, state: PodState) -> bool:
        """Say what the pod waits for; whether its container has begun."""
        if state.phase == "Pending" and state.why and state.why != self._said:
            self._said = state.why
            self.say(state.describe())
        return state.phase != "Pending"

    def _copy(self) -> bool:
        """Copy what there is to copy; True when the log was read to its end."""
        path = f"{path_in(self._namespace, 'Pod', self._pod)}/log"
        query = {"container": self._container, "follow": "true"}
        try:
            with self._client.stream(path, query) as response:
                skip = self._copied
                with self._log.open("ab", buffering=0) as file:
                    while data := response.read1(CHUNK):
                        fresh, skip = data[skip:], max(0, skip - len(data))
                        file.write(self._masker.feed(fresh))
                        self._copied += len(fresh)
        except ProvisionError:  # the pod is gone, and its log with it
            state = self._watch.state(self._pod)
            return state is not None and state.phase == "Gone"
        except (OSError, http.client.HTTPException, ValueError):
            return False
        else:
            return True


def end_all(followers: list[LogFollower], seconds: float) -> None:
    """Let logs come to their end, together no longer than some seconds."""
    end_s = time.monotonic() + seconds
    for follower in followers:
        with suppress(RuntimeError):
            follower.done.wait(max(0.0, end_s - time.monotonic()))
        follower.close()
