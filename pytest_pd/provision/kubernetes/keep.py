"""Forward the ports of a deployment that was kept, until its lease is over.

``python -m pytest_pd.provision.kubernetes.keep`` with one JSON object on standard
input (``site``, ``namespace``, ``selector``, ``forwards``: pod, address, ports;
``lease``, ``ttl_s``, ``log``); it says ``ready`` once it forwards. The harness that
brought the deployment up is gone by then; who attaches to it finds the same URLs.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from pytest_pd.provision.kubernetes.client import KubeClient
from pytest_pd.provision.kubernetes.forward import Forward
from pytest_pd.provision.kubernetes.watch import PodWatch
from pytest_pd.provision.launcher import Lease
from pytest_pd.spec.site_kubernetes import KubernetesSite

LOOK_S = 0.2


def main() -> None:
    """Forward what standard input names."""
    request = json.loads(sys.stdin.readline())
    client = KubeClient(KubernetesSite.model_validate(request["site"]))
    lease = Lease(request["lease"], request["ttl_s"], LOOK_S)
    where = (request["namespace"], request["selector"])
    watch = PodWatch(client, *where, lost_s=request["ttl_s"])
    forwards = [
        Forward(
            client.words,
            watch,
            (request["namespace"], pod),
            address,
            ports,
            Path(request["log"]),
        )
        for pod, address, ports in request["forwards"]
    ]
    try:
        client.open()
        watch.start()
        for each in forwards:
            each.start()
        print("ready", flush=True)
        while not lease.over():
            time.sleep(LOOK_S)
    finally:
        for each in forwards:
            each.close()
        watch.close()
        client.close()


if __name__ == "__main__":
    main()
