"""One import, many engines: born on demand, and none is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from pytest_pd.reference.prompts import make_recall
from tests.reference_process import WAIT_S, free_port, wait_until_healthy


class Pipe:
    """A zygote and the words to and from it."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self.popen = popen

    def say(self, line: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(line + "\n")
        self.popen.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.popen.stdout is not None
        return json.loads(self.popen.stdout.readline())

    def bear(self, name: str, log: Path, *argv: str, **env: str) -> dict[str, Any]:
        birth = {"name": name, "argv": argv, "env": env, "log": str(log)}
        self.say(json.dumps(birth))
        return self.hear()


@pytest.fixture
def zygote() -> Iterator[Pipe]:
    argv = [sys.executable, "-m", "pytest_pd.reference", "zygote"]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as popen:
        try:
            yield Pipe(popen)
        finally:
            if popen.stdin and not popen.stdin.closed:
                popen.stdin.close()
            popen.wait(WAIT_S)


def wait_gone(pid: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while psutil.pid_exists(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def serve_words(tiny: Path, port: int) -> tuple[str, ...]:
    return (str(tiny), "--host", "127.0.0.1", "--port", str(port))


def test_an_engine_answers_and_its_end_is_told(zygote, tiny, tmp_path):
    port, log = free_port(), tmp_path / "engine.log"
    born = zygote.bear("prefill-0", log, *serve_words(tiny, port))
    wait_until_healthy(f"http://127.0.0.1:{port}", zygote.popen, log)
    prompt = make_recall("zygote")

    body = {"prompt": prompt.text, "max_tokens": 16, "temperature": 0}
    url = f"http://127.0.0.1:{port}/v1/completions"
    answer = httpx.post(url, json=body, trust_env=False).json()
    os.kill(born["pid"], signal.SIGTERM)
    ended = zygote.hear()

    assert answer["choices"][0]["text"] == prompt.expected_text
    assert ended == {"name": "prefill-0", "pid": born["pid"], "exit_code": 0}
    assert "Application startup complete." in log.read_text()


def test_each_engine_leads_a_session_of_its_own(zygote, tiny, tmp_path):
    pids = []
    for index in range(2):
        log = tmp_path / f"{index}.log"
        port = free_port()
        pids.append(zygote.bear(str(index), log, *serve_words(tiny, port))["pid"])
        wait_until_healthy(f"http://127.0.0.1:{port}", zygote.popen, log)

    assert [os.getsid(pid) for pid in pids] == pids


def test_the_environment_is_the_engines_own(zygote, tiny, tmp_path):
    port, log = free_port(), tmp_path / "engine.log"
    words = serve_words(tiny, port)

    zygote.bear("keyed", log, *words, VLLM_API_KEY="k")
    wait_until_healthy(f"http://127.0.0.1:{port}", zygote.popen, log)

    models = httpx.get(f"http://127.0.0.1:{port}/v1/models", trust_env=False)
    assert models.status_code == 401


def test_a_mistake_in_the_flags_is_the_engines_end(zygote: Pipe, tmp_path: Path):
    log = tmp_path / "engine.log"
    born = zygote.bear("wrong", log, "model", "--no-such-flag")

    ended = zygote.hear()

    assert ended == {"name": "wrong", "pid": born["pid"], "exit_code": 2}
    assert "--no-such-flag" in log.read_text()


def test_a_killed_engine_is_told_by_its_signal(zygote, tiny, tmp_path):
    born = zygote.bear("killed", tmp_path / "log", *serve_words(tiny, free_port()))

    os.kill(born["pid"], signal.SIGKILL)

    assert zygote.hear()["exit_code"] == -signal.SIGKILL


@pytest.mark.parametrize(
    "line", ["not json", "{}", '{"name": "x", "argv": [], "log": "/no/such/dir/log"}']
)
def test_a_line_that_makes_no_engine_is_answered(zygote: Pipe, line: str):
    zygote.say(line)

    assert zygote.hear()["error"]


def test_no_engine_outlives_the_pipe(zygote, tiny, tmp_path):
    port, log = free_port(), tmp_path / "engine.log"
    born = zygote.bear("orphan", log, *serve_words(tiny, port))
    wait_until_healthy(f"http://127.0.0.1:{port}", zygote.popen, log)

    assert zygote.popen.stdin is not None
    zygote.popen.stdin.close()

    assert zygote.popen.wait(WAIT_S) == 0
    wait_gone(born["pid"])


def test_a_signal_ends_all(zygote, tiny, tmp_path):
    pids = []
    for index in range(3):
        words = serve_words(tiny, free_port())
        pids.append(zygote.bear(str(index), tmp_path / "log", *words)["pid"])

    zygote.popen.terminate()

    assert zygote.popen.wait(WAIT_S) == 0
    for pid in pids:
        wait_gone(pid)
