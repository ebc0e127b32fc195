"""The API of a cluster, spoken through ``kubectl proxy`` on a private socket.

kubectl brings credentials, certificates and contexts, as its user has them; one
process of it serves every request, watch and log. Its socket lies in a folder that
this user alone may enter, so nobody else gets in by it.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from pytest_pd import tied
from pytest_pd.errors import BackendMissing, InfrastructureLost, ProvisionError
from pytest_pd.provision.kubernetes.resource import path_of
from pytest_pd.spec.site_kubernetes import KubernetesSite

MANAGER = "pytest-pd"
AGAIN_S = 20.0
START_S, TIMEOUT_S, RETRIES_S, LOOK_S = 15.0, 30.0, 20.0, 0.05
RETRIED = (429, 500, 502, 503, 504)
NOT_FOUND, CONFLICT = 404, 409


class ApiError(ProvisionError):
    """The API server refused a request; `status` is HTTP's."""

    def __init__(self, fact: str, *, status: int, reason: str, hint: str = "") -> None:
        super().__init__(fact, hint=hint)
        self.status = status
        self.reason = reason


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket of this machine."""

    def __init__(self, path: str, timeout_s: float | None) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def kubectl_words(site: KubernetesSite) -> list[str]:
    """Return kubectl with the site's kubeconfig and context.

    Raises:
        BackendMissing: kubectl is not on this host.
    """
    program = shutil.which(site.kubectl)
    if program is None:
        raise BackendMissing(
            f"{site.kubectl!r} is not on PATH.",
            hint="install kubectl: the backend needs nothing else of this host",
        )
    words = [program]
    if site.kubeconfig:
        words += ["--kubeconfig", os.path.expanduser(site.kubeconfig)]  # noqa: PTH111
    return words + (["--context", site.context] if site.context else [])


def end(proxy: subprocess.Popen[bytes]) -> None:
    """Let go of a tied program, and wait until it has ended."""
    assert proxy.stdin is not None
    proxy.stdin.close()
    proxy.wait(2 * tied.GRACE_S)


class KubeClient:
    """Requests to one cluster. Used from any thread; each request has a connection."""

    def __init__(self, site: KubernetesSite) -> None:
        self.site = site
        self.words = kubectl_words(site)
        self._folder = Path(tempfile.mkdtemp(prefix="pytest-pd-kube-"))
        self._socket = str(self._folder / "api")
        self._log = self._folder / "log"
        self._proxy = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        Path(self._socket).unlink(missing_ok=True)
        with self._log.open("wb") as log:
            return subprocess.Popen(
                [
                    *(sys.executable, "-S", "-E", tied.__file__),
                    *(*self.words, "proxy", f"--unix-socket={self._socket}"),
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def open(self) -> None:
        """Return once the API server has answered.

        Raises:
            ProvisionError: kubectl or the server refuses, in their own words.
        """
        end_s = time.monotonic() + START_S
        while not Path(self._socket).exists():
            if self._proxy.poll() is not None or time.monotonic() > end_s:
                said = self._log.read_text(errors="replace").strip()
                raise ProvisionError(
                    f"kubectl cannot use the cluster: {said or 'no answer'}.",
                    hint="kubectl config get-contexts; the cluster file's kubernetes."
                    "kubeconfig and kubernetes.context say which one is used",
                )
            time.sleep(LOOK_S)
        try:
            self.request("GET", "/version")
        except (InfrastructureLost, ApiError) as error:
            raise ProvisionError(
                f"The cluster's API server cannot be used: {error.fact}",
                hint="try the same context with: kubectl get namespaces",
            ) from error

    def close(self) -> None:
        """End kubectl and remove its socket."""
        end(self._proxy)
        shutil.rmtree(self._folder, ignore_errors=True)

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: dict[str, str] | None = None,
        content: str = "application/json",
    ) -> dict[str, Any]:
        """Return the answer; what the server says to try again is tried again.

        Raises:
            ApiError: it refused, with its reason.
            InfrastructureLost: it did not answer for some time.
        """
        full = f"{path}?{urlencode(query)}" if query else path
        end_s = time.monotonic() + RETRIES_S
        while True:
            try:
                return self._once(method, full, body, content)
            except ApiError as error:
                if error.status not in RETRIED or time.monotonic() > end_s:
                    raise
            except (OSError, http.client.HTTPException, ValueError) as error:
                if time.monotonic() > end_s:
                    raise InfrastructureLost(
                        f"the API server did not answer {method} {path} for "
                        f"{RETRIES_S:g} s: {error}."
                    ) from error
                self._revive()
            time.sleep(4 * LOOK_S)

    def _revive(self) -> None:
        if self._proxy.poll() is not None:
            end(self._proxy)
            self._proxy = self._start()

    def _once(
        self, method: str, path: str, body: object, content: str
    ) -> dict[str, Any]:
        connection = UnixConnection(self._socket, TIMEOUT_S)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": content})
            response = connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read() or b"{}")
        finally:
            connection.close()
        if response.status >= 400:
            raise refusal(method, path, response.status, answer)
        return answer

    @contextmanager
    def stream(
        self, path: str, query: dict[str, str], *, silent_s: float | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """Yield an answer whose body goes on: a watch, a log that is followed.

        Args:
            silent_s: A pause after which the connection counts as dead.

        Raises:
            ApiError: the server refused.
            OSError: no connection.
        """
        connection = UnixConnection(self._socket, silent_s)
        try:
            connection.request("GET", f"{path}?{urlencode(query)}")
            response = connection.getresponse()
            if response.status >= 400:
                text = response.read().decode("utf-8", "replace")
                with suppress(ValueError):
                    raise refusal("GET", path, response.status, json.loads(text))
                raise refusal("GET", path, response.status, {"message": text})
            yield response
        finally:
            connection.close()

    def apply(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Apply one object on the server's side; return it as it is there.

        A server that asks to try again, as it does until a service account has its
        token, is asked again for `AGAIN_S`.
        """
        end_s = time.monotonic() + AGAIN_S
        while True:
            try:
                return self._apply(manifest)
            except ApiError as error:
                if "retry after" not in str(error) or time.monotonic() > end_s:
                    raise
            time.sleep(LOOK_S)

    def _apply(self, manifest: dict[str, Any]) -> dict[str, Any]:
        query = {"fieldManager": MANAGER, "force": "true"}
        return self.request(
            "PATCH",
            path_of(manifest),
            manifest,
            query=query,
            content="application/apply-patch+yaml",
        )

    def delete(self, path: str, *, grace_s: int | None = None) -> bool:
        """Delete an object; False when there was none."""
        body: dict[str, Any] = {"propagationPolicy": "Background"}
        if grace_s is not None:
            body["gracePeriodSeconds"] = grace_s
        try:
            self.request("DELETE", path, body)
        except ApiError as error:
            if error.status == NOT_FOUND:
                return False
            raise
        return True


def refusal(method: str, path: str, status: int, answer: object) -> ApiError:
    """Return the error for an answer that is one, in the server's own words."""
    found = answer if isinstance(answer, dict) else {}
    said = str(found.get("message") or f"HTTP {status}").strip().rstrip(".")
    reason = str(found.get("reason", ""))
    hint = ""
    if status in (401, 403) and "quota" not in said:
        hint = "ask for the permission, or choose another kubernetes.context"
    if "exceeded quota" in said:
        hint = "free something in the namespace, or ask for a larger quota"
    return ApiError(f"{said}.", status=status, reason=reason, hint=hint)
