"""etcd, kube-apiserver, kube-controller-manager and our kubelet, for some minutes."""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pytest_pd.errors import ProvisionError
from pytest_pd.provision.kube_local.assets import find_assets, kubectl
from pytest_pd.provision.kube_local.certs import write_certs
from pytest_pd.provision.kube_local.folder import plane_folder
from pytest_pd.provision.kubernetes.forward import take_block

START_S, STOP_S, LOOK_S = 90.0, 10.0, 0.05
CONTROLLERS = (
    "namespace,garbagecollector,serviceaccount,serviceaccount-token,resourcequota,"
    "deployment,replicaset,statefulset,endpoint,root-ca-cert-publisher"
)
BLOCKS = range(130, 190)
GPUS = 64


@dataclass(slots=True)
class Plane:
    """A control plane of this machine.

    Attributes:
        folder: Its data, logs and keys; goes with it.
        token: Of its administrator.
        block: Pods get addresses 127.<block>.x.y, Services those from x = 128.
    """

    assets: Path
    folder: Path
    gpus: int = GPUS
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    ports: dict[str, int] = field(default_factory=dict)
    block: int = 0
    held: socket.socket | None = None
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def kubectl(self) -> str:
        return kubectl()

    @property
    def server(self) -> str:
        return f"https://127.0.0.1:{self.ports['api']}"

    def start(self) -> None:
        """Start everything; return once the node is there.

        Raises:
            ProvisionError: one of the programs ended, with the end of its log.
        """
        names = ("etcd", "peer", "api", "kubelet")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.block, self.held = take_block(BLOCKS)
        write_certs(self.folder / "certs")
        self.write_access()
        self.run("etcd", self.etcd_words())
        self.await_answer("etcd", self.ports["etcd"], path="/health")
        self.start_api()
        self.start_controllers()
        self.start_kubelet()

    def start_api(self) -> None:
        """Start the API server; a second time it goes on with what etcd has."""
        self.run("kube-apiserver", self.api_words())
        self.await_answer("kube-apiserver", self.ports["api"], path="/readyz")

    def start_controllers(self) -> None:
        """Start the controllers; again, when a busy API server was too slow for them.

        They give up on a server that does not answer within 10 s.

        Raises:
            ProvisionError: the namespaces get no service accounts.
        """
        name = "kube-controller-manager"
        self.run(name, self.manager_words())
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        end_s = time.monotonic() + START_S
        while not self.answers(self.ports["api"], account):
            if time.monotonic() > end_s:
                raise ProvisionError(self.told_end(name))
            if self.daemons[name].poll() is not None:
                self.run(name, self.manager_words())
            time.sleep(LOOK_S)

    def start_kubelet(self) -> None:
        """Start the stand-in for the kubelet; wait until its node is there."""
        config = {
            "server": self.server,
            "token": self.token,
            "ca": str(self.folder / "certs" / "ca.crt"),
            "certs": str(self.folder / "certs"),
            "folder": str(self.folder / "pods"),
            "port": self.ports["kubelet"],
            "block": self.block,
            "gpus": self.gpus,
        }
        path = self.folder / "kubelet.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))
        self.run(
            "kubelet",
            [sys.executable, "-m", "pytest_pd.provision.kube_local.kubelet", str(path)],
        )
        node = "/api/v1/nodes/this-machine"
        self.await_answer("kubelet", self.ports["api"], path=node)

    def write_access(self) -> None:
        """Write the token file and the kubeconfig of its administrator."""
        tokens = self.folder / "tokens.csv"
        tokens.touch(mode=0o600)
        tokens.write_text(f"{self.token},admin,admin,system:masters\n")
        self.write_kubeconfig(self.kubeconfig, self.token)

    def write_kubeconfig(self, path: Path, token: str) -> None:
        """Write a kubeconfig with one context, ``local``, for whoever has a token."""
        authority = str(self.folder / "certs" / "ca.crt")
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "local",
            "clusters": [
                {
                    "name": "local",
                    "cluster": {
                        "server": self.server,
                        "certificate-authority": authority,
                    },
                }
            ],
            "users": [{"name": "admin", "user": {"token": token}}],
            "contexts": [
                {"name": "local", "context": {"cluster": "local", "user": "admin"}}
            ],
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))

    def proof(self, authority: str, certificate: str, key: str) -> list[str]:
        """Return options with our CA, and the certificate that it signed for us."""
        certs = self.folder / "certs"
        return [
            f"--{authority}={certs / 'ca.crt'}",
            f"--{certificate}={certs / 'serving.crt'}",
            f"--{key}={certs / 'serving.key'}",
        ]

    def etcd_words(self) -> list[str]:
        """Return the command line of etcd, which answers our own certificate only."""
        client, peer = (f"https://127.0.0.1:{self.ports[n]}" for n in ("etcd", "peer"))
        return [
            str(self.assets / "etcd"),
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            *self.proof("trusted-ca-file", "cert-file", "key-file"),
            "--client-cert-auth",
            *self.proof("peer-trusted-ca-file", "peer-cert-file", "peer-key-file"),
            "--peer-client-cert-auth",
        ]

    def api_words(self) -> list[str]:
        """Return the command line of the API server."""
        certs = self.folder / "certs"
        return [
            str(self.assets / "kube-apiserver"),
            f"--etcd-servers=https://127.0.0.1:{self.ports['etcd']}",
            *self.proof("etcd-cafile", "etcd-certfile", "etcd-keyfile"),
            *self.proof(
                "kubelet-certificate-authority",
                "kubelet-client-certificate",
                "kubelet-client-key",
            ),
            "--bind-address=127.0.0.1",
            f"--secure-port={self.ports['api']}",
            f"--tls-cert-file={certs / 'serving.crt'}",
            f"--tls-private-key-file={certs / 'serving.key'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={certs / 'accounts.pub'}",
            f"--service-account-signing-key-file={certs / 'accounts.key'}",
            f"--service-cluster-ip-range=127.{self.block}.128.0/17",
            "--endpoint-reconciler-type=none",
            "--kubelet-preferred-address-types=InternalIP",
        ]

    def manager_words(self) -> list[str]:
        """Return the command line of the controllers, those of nodes left out."""
        certs = self.folder / "certs"
        return [
            str(self.assets / "kube-controller-manager"),
            f"--kubeconfig={self.kubeconfig}",
            f"--controllers={CONTROLLERS}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            "--secure-port=0",
            # before 1.24 it listens on one more port, the same for every plane
            *(["--port=0"] if minor_of(self.assets) < 24 else []),
            f"--service-account-private-key-file={certs / 'accounts.key'}",
            f"--root-ca-file={certs / 'ca.crt'}",
            "--kube-api-qps=100",
            "--kube-api-burst=200",
        ]

    def run(self, name: str, words: Sequence[str]) -> None:
        """Start a daemon that ends with this process, however that ends."""
        tied = shutil.which("setpriv")
        prefix = [tied, "--pdeathsig", "KILL", "--"] if tied else []
        with (self.folder / f"{name}.log").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                [*prefix, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def await_answer(self, name: str, port: int, *, path: str) -> None:
        """Wait until a daemon answers 200.

        Raises:
            ProvisionError: it ended, or took too long; with the end of its log.
        """
        end_s = time.monotonic() + START_S
        while not self.answers(port, path):
            if self.daemons[name].poll() is not None or time.monotonic() > end_s:
                raise ProvisionError(self.told_end(name))
            time.sleep(LOOK_S)

    def told_end(self, name: str) -> str:
        """Return that a daemon does not do its work, with the end of its log."""
        log = self.folder / f"{name}.log"
        ends = log.read_text(errors="replace").splitlines()[-8:]
        told = f"{name} of the local control plane does not answer; its log ends:\n  "
        return told + "\n  ".join(ends)

    def answers(self, port: int, path: str) -> bool:
        """Ask once."""
        certs = self.folder / "certs"
        context = ssl.create_default_context(cafile=str(certs / "ca.crt"))
        context.load_cert_chain(certs / "serving.crt", certs / "serving.key")
        connection = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=5, context=context
        )
        try:
            headers = {"Authorization": f"Bearer {self.token}"}
            connection.request("GET", path, headers=headers)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def stop_one(self, name: str, number: int = signal.SIGTERM) -> None:
        """End a daemon and reap it."""
        popen = self.daemons.pop(name, None)
        if popen is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(popen.pid, number)
        try:
            popen.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(popen.pid, signal.SIGKILL)
            popen.wait()

    def close(self) -> None:
        """End everything: the kubelet first, which ends its pods."""
        for name in reversed(list(self.daemons)):
            hard = signal.SIGTERM if name == "kubelet" else signal.SIGKILL
            self.stop_one(name, hard)
        if self.held is not None:
            self.held.close()


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that are free now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return found


def minor_of(assets: Path) -> int:
    """Return the minor version of the control plane's programs: 20 of v1.20.2."""
    words = [str(assets / "kube-controller-manager"), "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    found = re.search(r"v1\.(\d+)", done.stdout)
    return int(found.group(1)) if found else 0


@contextmanager
def control_plane(*, gpus: int = GPUS) -> Iterator[Plane]:
    """Yield a control plane that is up; nothing of it is left afterwards.

    Raises:
        BackendMissing: its programs are not here.
        ProvisionError: one of them does not start.
    """
    assets = find_assets()
    with plane_folder() as folder:
        plane = Plane(assets, folder, gpus)
        try:
            plane.start()
            yield plane
        finally:
            plane.close()
