"""A port is taken when somebody listens there or is about to."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from pytest_pd.provision.ports import PortClaims, can_bind, holder_of
from tests.kit import free_ports


@pytest.fixture
def port():
    return free_ports(1)[0]


@pytest.fixture
def claims(tmp_path):
    made = PortClaims(tmp_path)
    yield made
    made.close()


def test_a_free_port_is_claimed(claims, port):
    assert claims.claim("127.0.0.1", port)


def test_a_port_with_a_listener_is_not(claims):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert not claims.claim("127.0.0.1", taken.getsockname()[1])


def test_a_listener_on_all_addresses_counts(claims):
    with socket.create_server(("0.0.0.0", 0)) as taken:
        assert not can_bind("127.0.0.1", taken.getsockname()[1])


def test_the_same_port_of_another_address_is_free():
    with socket.create_server(("127.0.1.1", 0)) as taken:
        assert can_bind("127.0.1.2", taken.getsockname()[1])


def test_a_claim_keeps_others_away_before_anybody_listens(claims, port, tmp_path):
    assert claims.claim("127.0.0.1", port)

    assert not PortClaims(tmp_path).claim("127.0.0.1", port)


def test_a_claim_may_be_repeated_by_its_holder(claims, port):
    assert claims.claim("127.0.0.1", port)
    assert claims.claim("127.0.0.1", port)


def test_a_claim_given_back_is_free(tmp_path, port):
    first, second = PortClaims(tmp_path), PortClaims(tmp_path)
    first.claim("127.0.0.1", port)
    first.close()

    assert second.claim("127.0.0.1", port)
    second.close()


def test_a_killed_holder_gives_its_claims_back(claims, port, tmp_path):
    code = (
        "import sys, time; from pathlib import Path;"
        "from pytest_pd.provision.ports import PortClaims;"
        "c = PortClaims(Path(sys.argv[1]));"
        "print(c.claim('127.0.0.1', int(sys.argv[2])), flush=True); time.sleep(600)"
    )
    words = [sys.executable, "-c", code, str(tmp_path), str(port)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"True\n"
        assert not claims.claim("127.0.0.1", port)
        child.kill()

    assert claims.claim("127.0.0.1", port)


def test_the_holder_of_a_port_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert f"pid {os.getpid()}" in holder_of(taken.getsockname()[1])


def test_a_holder_that_cannot_be_seen_is_still_somebody(port):
    assert holder_of(port) == "another process"
