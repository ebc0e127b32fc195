"""Lines of logs that tell of NIXL, and the shell words that try connections."""

from __future__ import annotations

import socket
import subprocess

import pytest

from pytest_pd.provision.kubernetes.diagnose import CONNECT, NIXL_TROUBLE
from tests.kit import free_ports


@pytest.mark.parametrize(
    "line",
    [
        "WARNING nixl_connector.py: NIXL is not available",
        "E nixl_agent.cpp:512] loadRemoteMD: NIXL_ERR_BACKEND",
        "ERROR NIXL handshake with engine 3 failed: no answer",
        "NIXL: connection to 10.0.0.7:5600 timed out",
        "nixl_cu12._bindings.nixlRemoteDisconnectError: NIXL_ERR_REMOTE_DISCONNECT",
    ],
)
def test_a_line_that_tells_of_trouble_is_found(line):
    assert NIXL_TROUBLE.search(line)


@pytest.mark.parametrize(
    "line",
    [
        "INFO NIXL is available",
        "INFO Initializing NIXL wrapper",
        "INFO NIXL compatibility check passed",
        "INFO NIXL handshake with engine 3: 0.12 s of wall time",
    ],
)
def test_a_line_of_good_health_is_not(line):
    assert not NIXL_TROUBLE.search(line)


def test_a_connection_is_tried_to_every_place(free_server):
    (closed,) = free_ports(1)
    places = [free_server, f"127.0.0.1:{closed}", "nowhere.invalid:80"]
    done = subprocess.run(
        ["sh", "-c", CONNECT, "sh", *places],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())

    assert said[places[0]] == "ok"
    assert "refused" in said[places[1]]
    assert said[places[2]] not in ("ok", "unknown")


@pytest.fixture
def free_server():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"
