"""What goes wrong for real is one clear message, the right exit code, no traceback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

SUITE = Path(__file__).parents[2] / "suites" / "correctness" / "test_api.py"

TOPOLOGY = {
    "name": "mine",
    "hardware": "cpu",
    "model": {"path": "fixtures/models/tiny", "served_name": "tiny"},
    "engine": {"kind": "reference"},
    "kv_transfer": {"connector": "tcp"},
    "prefill": {"replicas": 1},
    "decode": {"replicas": 1},
    "router": {"kind": "proxy"},
}


@pytest.fixture
def run(tmp_path):
    """Run one suite on a topology that differs from a good one."""

    def _run(*options, keyword="test_whole_answer", **change):
        file = tmp_path / "mine.yaml"
        file.write_text(yaml.safe_dump({**TOPOLOGY, **change}))
        return subprocess.run(
            [
                *(sys.executable, "-m", "pytest", str(SUITE), "-k", keyword),
                *("--pd-topology", str(file), "-p", "no:cacheprovider", *options),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    return _run


def told(done, code, *words):
    text = done.stdout + done.stderr
    assert done.returncode == code, text
    assert "Traceback (most recent call last)" not in text.replace("    Traceback", "")
    for word in words:
        assert word in text, text


def test_wrong_key(run):
    told(run(agregated={"replicas": 1}), 4, "agregated", "aggregated", "mine.yaml")


def test_port_in_use_names_its_holder(run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        done = run(router={"kind": "proxy", "port": port})

    told(done, 1, f"Port {port}", "in use", str(os.getpid()))


def test_engine_that_dies_at_start(run):
    done = run(engine={"kind": "reference", "args": ["--no-such-flag"]})

    told(done, 1, "exited with code 2", "--no-such-flag", "BLOCKED")


def test_model_path_that_does_not_exist(run):
    done = run(model={"path": "/no/such/model", "served_name": "x"})

    told(done, 1, "/no/such/model")


def test_shipped_model_that_does_not_exist_is_refused_before_anything_starts(run):
    done = run(model={"path": "fixtures/models/none", "served_name": "x"})

    told(done, 4, "fixtures/models/none")


def test_unwritable_run_directory(run, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")

    done = run("--pd-run-dir", str(blocked / "run"))

    told(done, 1, "cannot be written", "--run-dir")


def test_unknown_engine(run):
    told(run(engine={"kind": "referense"}), 4, "referense", "reference")


ROUTER = '''
"""A router that knows /v1/completions and answers 404 on chat."""

import sys

from aiohttp import ClientSession, web


async def forward(request):
    async with ClientSession() as session:
        async with session.request(
            request.method, sys.argv[2] + request.path, data=await request.read(),
            headers={"content-type": "application/json"},
        ) as answer:
            return web.Response(
                status=answer.status,
                body=await answer.read(),
                content_type="application/json",
            )


async def health(request):
    return web.Response(text="ok")


app = web.Application()
app.router.add_get("/health", health)
app.router.add_get("/v1/models", forward)
app.router.add_post("/v1/completions", forward)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
'''


def test_router_that_answers_404_on_chat(tmp_path):
    """Attached by URL, as a router of somebody else's."""
    script = tmp_path / "router.py"
    script.write_text(ROUTER)
    up = subprocess.run(
        [sys.executable, "-m", "pytest_pd.cli", "up", "local_agg", "--for", "2m"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    run_id, url = up.stdout.split()[1:3]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    router = subprocess.Popen([sys.executable, str(script), str(port), url])
    try:
        wait_for(port)
        done = subprocess.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "pytest",
                    str(SUITE),
                    "-k",
                    "test_whole_answer",
                ),
                *("--pd-attach", f"http://127.0.0.1:{port}"),
                *("-p", "no:cacheprovider"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        router.terminate()
        router.wait()
        subprocess.run(
            [sys.executable, "-m", "pytest_pd.cli", "down", run_id],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )

    assert done.returncode == 1
    assert "404" in done.stdout
    assert "test_whole_answer[topo:attached@attached-chat]" in done.stdout
    assert "1 failed, 1 passed" in done.stdout


def wait_for(port, seconds=30):
    import time

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the router did not start")
