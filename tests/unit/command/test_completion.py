"""What TAB offers, asked in the way a shell asks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_pd.cli import main
from pytest_pd.complete import run_ids

ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent


@pytest.fixture
def offered(tmp_path):
    """Return the words that a program offers behind a line."""

    def _offered(line, cwd=ROOT):
        answer = tmp_path / "answer"
        env = {
            **os.environ,
            "_ARGCOMPLETE": "1",
            "_ARGCOMPLETE_IFS": "\n",
            "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
            "COMP_LINE": line,
            "COMP_POINT": str(len(line)),
            "COMP_TYPE": "9",
        }
        program = BIN / line.split()[0]
        subprocess.run([program], env=env, cwd=cwd, check=False, timeout=60)
        return [word.strip() for word in answer.read_text().split("\n")]

    return _offered


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("pytest-pd night", "nightly"),
        ("pytest-pd nightly --bud", "--budget"),
        ("pytest-pd plan local_2p1", "local_2p1d"),
        ("pytest-pd plan x --cluster gb", "gb200_slurm"),
        ("pytest-pd engines install vllm-r", "vllm-router"),
        ("pytest-pd refit plan kimi_k2 --pic", "--picture"),
        ("pytest --topology local_ag", "local_agg"),
        ("pytest --pd-cluster=gb", "--pd-cluster=gb200_slurm"),
        ("pytest --pd-le", "--pd-level"),
    ],
)
def test_tab_offers(offered, line, word):
    assert offered(line) == [word]


def test_a_comma_list_goes_on(offered):
    found = offered("pytest --pd-topology=local_1p1d,local_")

    assert "--pd-topology=local_1p1d,local_agg" in found
    assert "--pd-topology=local_1p1d,local_1p1d" not in found


def test_every_command_is_offered(offered):
    from pytest_pd.cli import COMMANDS

    assert set(COMMANDS) <= set(offered("pytest-pd "))


def test_runs_are_offered_newest_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("20260101T000000Z-aaaaaaaa", "20260102T000000Z-abbbbbbb"):
        (tmp_path / "runs" / name / "t").mkdir(parents=True)
        (tmp_path / "runs" / name / "t" / "manifest.json").write_text("{}")

    assert run_ids("a") == ["abbbbbbb", "aaaaaaaa"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_both_programs_are_taught(shell, capsys):
    assert main(["completion", shell]) == 0

    said = capsys.readouterr().out
    assert "pytest-pd" in said
    assert said.count("pytest") > said.count("pytest-pd")


def test_bash_reads_it(tmp_path):
    line = 'eval "$("$1" completion bash)"; complete -p pytest-pd; complete -p pytest'

    done = subprocess.run(
        ["bash", "-c", line, "bash", str(BIN / "pytest-pd")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
