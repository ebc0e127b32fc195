"""Carry a lease into a cluster: a helper process beside the keeper of the lease.

``python -m pytest_pd.provision.kubernetes.relay`` with one JSON object on standard
input (``site``, ``namespace``, ``name``, ``ours``, ``lease``, ``ttl_s``); it says
``ready`` once the cluster answers, and is started before anything is made there: a
harness may be killed at any moment. A process of its own, so that what stops the
harness for a while (a held GIL, ``--pdb``, Ctrl-Z) ends no pod. When the lease is
given back, or is not renewed any more, it deletes the Lease, which owns every other
object, and the namespace if it is ours; if it dies as well, the guard in the cluster
does.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from pytest_pd.errors import ProvisionError
from pytest_pd.provision.kubernetes.client import NOT_FOUND, ApiError, KubeClient
from pytest_pd.provision.kubernetes.resource import path_in
from pytest_pd.provision.launcher import Lease
from pytest_pd.spec.site_kubernetes import KubernetesSite

LOOK_S = 0.2
MERGE = "application/merge-patch+json"
GONE_S = 5.0


def now_text() -> str:
    """Return the time as the API writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Relay:
    """Renews one Lease object for as long as a file changes."""

    def __init__(self, client: KubeClient, request: dict[str, Any]) -> None:
        self._client = client
        self._path = path_in(request["namespace"], "Lease", request["name"])
        self._ours = str(request["ours"])
        self._ttl_s = float(request["ttl_s"])
        self._file = Lease(request["lease"], self._ttl_s, LOOK_S)
        self._seen = False
        self._missing_since_s: float | None = None

    def renew(self) -> bool:
        """Renew once; False when the Lease is gone, and everything with it."""
        body = {"spec": {"renewTime": now_text()}}
        try:
            self._client.request("PATCH", self._path, body, content=MERGE)
            self._seen, self._missing_since_s = True, None
        except ApiError as error:
            # A server that starts says for a moment that nothing is there.
            if self._seen and error.status == NOT_FOUND:
                now_s = time.monotonic()
                self._missing_since_s = self._missing_since_s or now_s
                return now_s - self._missing_since_s < GONE_S
        except ProvisionError:
            pass  # the server does not answer; the guard counts only what it sees
        return True

    def run(self) -> None:
        """Renew until the lease is over; then end everything in the cluster."""
        sent: bytes | None = None
        sent_s = 0.0
        while not self._file.over():
            now_s = time.monotonic()
            if self._file.last != sent and now_s - sent_s > self._ttl_s / 5:
                sent, sent_s = self._file.last, now_s
                if not self.renew():
                    return
            time.sleep(LOOK_S)
        self.end()

    def end(self) -> None:
        """Delete what owns everything else."""
        with suppress(ProvisionError):
            self._client.delete(self._path)
        if self._ours:
            with suppress(ProvisionError):
                self._client.delete(f"/api/v1/namespaces/{self._ours}")


def main() -> None:
    """Relay what standard input names; asked to end, it leaves the cluster alone."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    request = json.loads(sys.stdin.readline())
    client = KubeClient(KubernetesSite.model_validate(request["site"]))
    try:
        client.open()
        relay = Relay(client, request)
        print("ready", flush=True)
        relay.run()
    finally:
        client.close()


if __name__ == "__main__":
    main()
