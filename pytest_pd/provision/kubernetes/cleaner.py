"""End a deployment in a cluster once its lease is not renewed any more.

A program of its own for a pod with Python 3.6 or later and nothing else:
``python3 -S -E cleaner.py NAMESPACE LEASE TTL_S OUR_NAMESPACE``. Only what it sees
change counts: its clock and the harness's need not agree, and an API server that
does not answer says nothing about the harness. The Lease owns everything else of the
deployment, so the cluster's garbage collector takes that away.
"""

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from typing import Any, Optional

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
POLL_S = 1.0
TIMEOUT_S = 5.0
GONE = 404
GONE_S = 5.0


def read(name: str) -> str:
    """Return a file of the service account; tokens are renewed in place."""
    with open(f"{ACCOUNT}/{name}") as file:  # noqa: PTH123
        return file.read().strip()


def call(method: str, path: str) -> "tuple[int, dict[str, Any]]":
    """Ask the API server; (0, {}) when it does not answer."""
    host = os.environ["KUBERNETES_SERVICE_HOST"]
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host
    request = urllib.request.Request(
        f"https://{host}:{port}{path}",
        method=method,
        headers={"Authorization": f"Bearer {read('token')}"},
    )
    try:
        context = ssl.create_default_context(cafile=f"{ACCOUNT}/ca.crt")
        with urllib.request.urlopen(
            request, timeout=TIMEOUT_S, context=context
        ) as answer:
            return answer.status, json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        error.close()
        return error.code, {}
    except (OSError, ValueError):
        return 0, {}


class Watch:
    """A value that somebody keeps changing, and how long it has not changed."""

    def __init__(self, ttl_s: float) -> None:
        self.ttl_s = ttl_s
        self.last = ""
        self.unchanged_s = 0.0
        self.looked_s = time.monotonic()
        self.gone_since_s: Optional[float] = None  # noqa: UP045

    def gone(self, seen: bool) -> bool:
        """Note whether it was not there; True when that was so for `GONE_S`.

        An API server that starts says for a moment that nothing is there.
        """
        if not seen:
            self.gone_since_s = None
        elif self.gone_since_s is None:
            self.gone_since_s = time.monotonic()
        since_s = self.gone_since_s
        return since_s is not None and time.monotonic() - since_s >= GONE_S

    def over(self, text: str) -> bool:
        """Note what was seen, empty for nothing; True when the TTL has passed.

        While a server does not answer nobody can renew: that time does not count. No
        single look uses up the TTL: what is slow for us is so for others.
        """
        now_s = time.monotonic()
        passed_s, self.looked_s = now_s - self.looked_s, now_s
        if not text:
            return False
        if text != self.last:
            self.last, self.unchanged_s = text, 0.0
        else:
            self.unchanged_s += min(passed_s, 4 * POLL_S, self.ttl_s / 3)
        return self.unchanged_s > self.ttl_s


def main() -> int:
    """Watch until the lease is over or gone, and end the deployment."""
    namespace, name, ttl_s, ours = sys.argv[1:5]
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"
    watch = Watch(float(ttl_s))
    while True:
        status, lease = call("GET", path)
        renewed = str(lease.get("spec", {}).get("renewTime", ""))
        if watch.gone(status == GONE) or watch.over(renewed):
            break
        time.sleep(min(POLL_S, watch.ttl_s / 4))
    print("nobody renews the lease: everything of the run ends", flush=True)
    while True:
        status, _ = call("DELETE", path)
        if ours:
            call("DELETE", f"/api/v1/namespaces/{ours}")
        if status in (200, 202, GONE):
            return 0
        time.sleep(POLL_S)


if __name__ == "__main__":
    sys.exit(main())
