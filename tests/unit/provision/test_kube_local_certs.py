"""Certificates of a local control plane hold before the strictest of Pythons."""

from __future__ import annotations

import socket
import ssl
from concurrent.futures import ThreadPoolExecutor

from pytest_pd.provision.kube_local.certs import write_certs


def test_both_sides_prove_themselves_by_the_rules_of_python_3_13(tmp_path):
    write_certs(tmp_path)
    server = context(tmp_path, ssl.Purpose.CLIENT_AUTH)
    server.verify_mode = ssl.CERT_REQUIRED
    client = context(tmp_path, ssl.Purpose.SERVER_AUTH)

    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        ThreadPoolExecutor() as pool,
    ):
        told = pool.submit(say, listener, server)
        here = socket.create_connection(listener.getsockname(), timeout=10)
        with client.wrap_socket(here, server_hostname="127.0.0.1") as wire:
            assert wire.recv(9) == b"well"
        told.result()


def context(folder, purpose):
    made = ssl.create_default_context(purpose, cafile=folder / "ca.crt")
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.load_cert_chain(folder / "serving.crt", folder / "serving.key")
    return made


def say(listener, server):
    there, _ = listener.accept()
    with server.wrap_socket(there, server_side=True) as wire:
        wire.sendall(b"well")
