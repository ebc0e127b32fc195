"""Planted secrets: looked for in every byte that a run writes, prints or shows."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

PLANTED = {
    "HF_TOKEN": "hf_planted0123456789abcdef",
    "OPENAI_API_KEY": "sk-planted-fedcba9876543210",
    "A_PLAIN_NAME": "plain-planted-5566778899",
    "INDEX_URL": "https://reader:urlplanted4711@host.invalid/simple",
    "CACHE_URL": "redis://:redisplanted1234@host.invalid/0",
    "NIGHT_WEBHOOK": "https://hooks.invalid/T0/webhookplanted99",
    "A_HARD_NAME": 'quo"te\\hardplanted6677\nlineplanted3344',
}
WORDS = (
    *list(PLANTED.values())[:3],
    *("urlplanted4711", "queryplanted0815", "redisplanted1234", "webhookplanted99"),
    *("hardplanted6677", "lineplanted3344"),
)

SPEAKS = """
import os, sys
if "pytest_pd" in " ".join(sys.orig_argv):
    names = ("HF_TOKEN", "OPENAI_API_KEY", "A_PLAIN_NAME", "INDEX_URL", "A_HARD_NAME")
    for name in names:
        print("starting with", name, os.environ.get(name), file=sys.stderr, flush=True)
"""
"""A service that logs its environment, as too many do."""

SUITE = """
import os
import warnings

import pytest

ALL = {name: os.environ[name] for name in ("HF_TOKEN", "A_HARD_NAME", "NIGHT_WEBHOOK")}

def test_a_failure_that_shows_secrets(deployment):
    token = os.environ["HF_TOKEN"]
    print("printed", token)
    url = os.environ["INDEX_URL"] + "?token=queryplanted0815"
    assert token == url, os.environ["A_PLAIN_NAME"]

def test_a_request_is_answered(ask, prompts):
    assert ask(prompts.make(0, tokens=40).text, max_tokens=2).ok

def test_what_else_is_told(deployment, record_property):
    record_property("all", ALL)
    warnings.warn(f"warned of {ALL} and {os.environ['CACHE_URL']}")

def test_it_is_skipped(deployment):
    pytest.skip(f"skipped for {ALL}")

def test_it_may_fail(deployment):
    pytest.xfail(f"fails for {ALL}")
"""


def topology(folder: Path) -> dict:
    worker = {
        "env_from_host": ["HF_TOKEN", "A_PLAIN_NAME", "A_HARD_NAME"],
        "env": {"PYTHONPATH": str(folder / "speaks")},
    }
    return {
        "name": "planted",
        "hardware": "cpu",
        "model": {"path": "fixtures/models/tiny", "served_name": "tiny"},
        "engine": {"kind": "reference"},
        "kv_transfer": {"connector": "pull"},
        "prefill": worker,
        "decode": worker,
        "router": {"kind": "proxy"},
    }


def listening(run_id: str) -> dict[str, set[str]]:
    """Return the addresses on which processes of a run listen, by service."""
    inodes: dict[str, str] = {}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":  # LISTEN
                inodes[words[9]] = words[1].partition(":")[0]
    found: dict[str, set[str]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            mark = (entry / "environ").read_bytes().partition(b"PYTEST_PD_SERVICE=")[2]
            service = mark.partition(b"\0")[0].decode()
            links = [str(link.readlink()) for link in (entry / "fd").iterdir()]
        except OSError:
            continue
        if not service.startswith(f"{run_id}/"):
            continue
        for link in links:
            inode = link.removeprefix("socket:[").removesuffix("]")
            if inode in inodes:
                found.setdefault(service, set()).add(address(inodes[inode]))
    return found


def address(text: str) -> str:
    """Return the address of a hexadecimal word of /proc/net/tcp."""
    data = bytes.fromhex(text)
    words = [data[i : i + 4][::-1] for i in range(0, len(data), 4)]
    family = socket.AF_INET if len(data) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, b"".join(words))


class Watcher(threading.Thread):
    """Looks at every command line and at every listener while the run goes on."""

    def __init__(self, run: Path) -> None:
        super().__init__(daemon=True)
        self.run_dir = run
        self.stop = threading.Event()
        self.leaks: set[str] = set()
        self.listeners: dict[str, set[str]] = {}
        self.modes: dict[str, int] = {}
        self.looks = 0

    def run(self) -> None:
        while not self.stop.wait(0.05):
            self.looks += 1
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    text = entry.read_bytes().decode(errors="replace")
                except OSError:
                    continue
                if any(word in text for word in WORDS):
                    self.leaks.add(text)
            for manifest in self.run_dir.glob("*/manifest.json"):
                self._look_at(manifest)

    def _look_at(self, manifest: Path) -> None:
        try:
            run_id = json.loads(manifest.read_text())["run_id"]
        except (OSError, ValueError, KeyError):
            return
        for service, found in listening(run_id).items():
            self.listeners.setdefault(service, set()).update(found)
        for path in (manifest, manifest.with_name("lease")):
            if path.exists():
                self.modes[path.name] = stat.S_IMODE(path.stat().st_mode)
        for path in manifest.parent.glob("logs/*.log"):
            self.modes[path.name] = stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run a suite with planted secrets; return what it left, printed and showed."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "speaks").mkdir()
    (folder / "speaks" / "sitecustomize.py").write_text(SPEAKS)
    (folder / "planted.yaml").write_text(yaml.safe_dump(topology(folder)))
    (folder / "test_planted.py").write_text(SUITE)
    (folder / "pytest.ini").write_text("[pytest]\npd_save = true\n")
    watcher = Watcher(folder / "run")
    watcher.start()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "test_planted.py", "-p", "no:randomly"),
            *("--pd-topology", "planted.yaml", "--pd-run-dir", "run"),
            *("--junitxml", "out/junit.xml", "-p", "no:cacheprovider", "-vv"),
            *("-rA", "--showlocals"),
        ],
        cwd=folder,
        env={**os.environ, **PLANTED},
        capture_output=True,
        timeout=240,
        check=False,
    )
    watcher.stop.set()
    watcher.join(30)
    for source in ("test_planted.py", "speaks"):  # what the user wrote is the user's
        path = folder / source
        path.unlink() if path.is_file() else (path / "sitecustomize.py").unlink()
    return folder, done, watcher


def test_the_run_went_as_planned(run):
    folder, done, watcher = run
    logs = "".join(p.read_text() for p in (folder / "run").glob("*/logs/*.log"))

    assert b"1 failed, 2 passed, 1 skipped, 1 xfailed" in done.stdout, (
        done.stdout.decode()[-3000:]
    )
    assert logs.count("starting with HF_TOKEN ****") >= 2
    assert watcher.looks > 10


def test_no_byte_that_is_left_holds_a_secret(run):
    folder, _, _ = run
    files = [path for path in folder.rglob("*") if path.is_file()]

    leaks = {
        (str(path.relative_to(folder)), word)
        for path in files
        for word in WORDS
        if word.encode() in path.read_bytes()
    }

    assert len(files) > 20
    assert not leaks


def test_nothing_that_is_printed_holds_a_secret(run):
    _, done, _ = run
    text = (done.stdout + done.stderr).decode()

    assert [word for word in WORDS if word in text] == []


def test_no_command_line_shows_a_secret(run):
    assert not run[2].leaks


def test_services_listen_on_loopback_only(run):
    listeners = run[2].listeners
    services = {service.rpartition("/")[2] for service in listeners}
    addresses = set().union(*listeners.values())

    assert {"prefill-0", "decode-0", "router"} <= services
    assert {a for a in addresses if not a.startswith("127.") and a != "::1"} == set()


def test_manifest_lease_and_logs_are_for_their_owner(run):
    modes = run[2].modes
    (kept,) = run[0].glob("run/*/environment.json")
    modes[kept.name] = stat.S_IMODE(kept.stat().st_mode)

    assert {"manifest.json", "lease", "prefill-0.log", "router.log"} <= set(modes)
    assert {name: oct(mode) for name, mode in modes.items() if mode & 0o077} == {}
