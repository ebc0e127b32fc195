"""``pytest-pd up`` as a person uses it: from a folder of his own, then down."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from pytest_pd import cli
from pytest_pd.probe.completion import one_token
from pytest_pd.provision.attach import attach_run
from tests.e2e.lease_harness import ROOT, left_of
from tests.kit import wait_until

PD = (sys.executable, "-m", "pytest_pd.cli")


@pytest.fixture
def env(tmp_path, monkeypatch):
    (tmp_path / "runtime").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.chdir(tmp_path)
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_up_for_a_while_then_attach_then_down(tmp_path, env, capsys):
    words = [*PD, "up", "local_1p1d", "--for", "10m"]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    run_id, url = re.match(r"run (\w+)  (\S+)", done.stdout).groups()
    try:
        assert one_token(url, "tiny", salt="up") is None
        attached = attach_run(run_id, root=tmp_path / "runs")
        assert attached.url == url
        assert (attached.run_dir / "plan.lock.yaml").is_file()
    finally:
        assert cli.main(["down", run_id]) == 0

    assert left_of(attached.run_dir, run_id) == []


def test_up_in_the_foreground_ends_by_ctrl_c(tmp_path, env):
    words = [*PD, "up", "local_1p1d"]
    with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True) as child:
        line = child.stdout.readline()
        run_id = line.split()[1]
        assert child.stdout.readline() == "Ctrl-C ends it.\n"
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 0

    wait_until(lambda: not left_of(tmp_path / "runs", run_id), "the end of all")


def test_a_name_that_stands_for_nothing_is_one_line(env, capsys):
    assert cli.main(["up", "local_1p1q"]) == 2

    assert "did you mean 'local_1p1d'" in capsys.readouterr().err


def test_hardware_that_is_not_here_says_how_to_rehearse(env, capsys):
    assert cli.main(["up", "k2_2p1d"]) == 2

    assert "--rehearse" in capsys.readouterr().err
