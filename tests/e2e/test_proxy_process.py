"""The proxy as a process: start, signals, and errors a user can make."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx
import pytest

DEADLINE_S = 30.0
DOORS = {
    "module": (sys.executable, "-m", "pytest_pd.proxy"),
    "command": (sys.executable, "-m", "pytest_pd.cli", "proxy"),
}


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def urls():
    """Return URLs where nobody listens."""
    return (
        "--prefill-url", f"http://127.0.0.1:{free_port()}",
        "--decode-url", f"http://127.0.0.1:{free_port()}",
    )  # fmt: skip


@contextmanager
def running(tmp_path, *words, door="module"):
    """Yield process and base URL of a proxy; it is gone afterwards."""
    log = tmp_path / "proxy.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*DOORS[door], "--port", "0", *words], stderr=sink, stdout=sink
        )
    try:
        yield process, wait_for_url(process, log)
    finally:
        process.kill()
        process.wait()


def wait_for_url(process, log):
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s and process.poll() is None:
        if found := re.search(r"ready on (http://\S+)", log.read_text()):
            return found[1]
        time.sleep(0.02)
    pytest.fail(f"the proxy did not start:\n{log.read_text()}")


@pytest.mark.parametrize("door", DOORS)
def test_it_lives_without_workers_and_says_who_is_missing(tmp_path, door):
    with running(tmp_path, *urls(), door=door) as (_, url):
        assert httpx.get(f"{url}/liveness").text == "OK"
        ready = httpx.get(f"{url}/readiness")

        assert ready.status_code == 503
        assert ready.json()["reason"] == (
            "no healthy prefill workers, no healthy decode workers"
        )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_success(tmp_path, number):
    with running(tmp_path, *urls()) as (process, _):
        process.send_signal(number)

        assert process.wait(DEADLINE_S) == 0
    assert "Traceback" not in (tmp_path / "proxy.log").read_text()


def test_it_listens_on_loopback_only(tmp_path):
    with running(tmp_path, *urls()) as (process, url):
        port = httpx.URL(url).port
        with open(f"/proc/{process.pid}/net/tcp") as table:  # noqa: PTH123
            listening = [line.split()[1] for line in table if line.split()[3] == "0A"]

        assert [a for a in listening if a.endswith(f":{port:04X}")] == [
            f"0100007F:{port:04X}"
        ]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--prefill-url", "nonsense", "--decode-url", "http://d:1"), "'nonsense'"),
        (("--prefill-url", "http://p:1"), "no decode worker"),
        ((*urls(), "--fault", '{"kind": "cutt"}'), "did you mean 'cut'"),
        ((*urls(), "--api-key-env", "NOT_SET_ANYWHERE"), "NOT_SET_ANYWHERE"),
    ],
    ids=["url", "roles", "fault", "key"],
)
def test_a_user_s_mistake_is_one_message_and_exit_code_2(door, words, message):
    done = subprocess.run(
        [*DOORS[door], *words], capture_output=True, text=True, timeout=DEADLINE_S
    )

    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*DOORS["module"], "--port", str(port), *urls()],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )

    assert done.returncode == 2
    assert f"127.0.0.1:{port}" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_shows_examples():
    done = subprocess.run(
        [*DOORS["command"], "--help"], capture_output=True, text=True, timeout=30
    )

    assert done.returncode == 0
    assert "--prefill-url http://localhost:8100" in done.stdout
