"""A wrong call is one message and exit code 2, never a traceback."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from pytest_pd.cli import UNREAD, main

UNBUFFERED = {"PYTHONUNBUFFERED": "1"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("compare a b --confidence 95", "'95' is no share above 0 and below 1"),
        ("compare a b --confidence nan", "'nan' is no share"),
        ("compare a b --effect -1", "'-1' is no number from 0 on"),
        ("compare a b --jitter inf", "'inf' is no number from 0 on"),
        ("compare a b --rounds 0", "'0' is no whole number of 1 or more"),
        ("history a --alpha 5", "'5' is no share"),
        ("history a --effect x", "'x' is no number from 0 on"),
        ("prune --keep -1", "'-1' is no whole number of 0 or more"),
        ("history a --jitter -0.1", "'-0.1' is no number from 0 on"),
        ("compare a b --jitter 1e308", "'1e308' is no number from 0 on, up to 10"),
        ("load u --timeout 1e300", "'1e300' is no number above 0 and up to"),
        ("load u --duration inf", "'inf' is no number above 0 and up to"),
        ("load u --input-tokens 1000000000000", "'1000000000000' is more than"),
        ("load u --output-tokens 100000000000", "'100000000000' is more than"),
        ("load u --requests 1000000000000", "'1000000000000' is more than"),
        ("load u --concurrency 1000000000000", "'1000000000000' is more than"),
        ("load u --shards 1000000000000", "'1000000000000' is more than"),
        ("nightly --budget 9999999999999999d", "'9999999999999999d' is more than"),
    ],
)
def test_number_out_of_range_is_told_with_its_option(words, told, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words.split())

    assert f"argument {words.split()[-2]}: {told}" in capsys.readouterr().err


def test_file_that_is_not_there_is_named(tmp_path, capsys):
    path = tmp_path / "nofile"

    assert main(["refit", "parse", "kimi_k2", str(path), "-s", "1"]) == 2

    told = capsys.readouterr().err
    assert told.startswith(f"pytest-pd refit: '{path}' cannot be used: No such file")
    assert "try: look at its name" in told


def test_error_that_names_no_file_is_a_bug_and_stays_one(monkeypatch):
    def broken(_args):
        raise OSError("no file is to blame")

    monkeypatch.setattr("pytest_pd.refit.command.run", broken)

    with pytest.raises(OSError, match="no file is to blame"):
        main(["refit", "plan", "kimi_k2"])


def test_file_that_is_no_text_is_no_output_of_the_benchmark(tmp_path, capsys):
    path = tmp_path / "out.bin"
    path.write_bytes(b"\xff\xfe\x00")

    assert main(["refit", "parse", "kimi_k2", str(path), "-s", "1"]) == 2
    assert "has no 'Mean'" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"kinds": 1}'])
def test_json_that_is_no_job_of_a_refit_is_told(tmp_path, capsys, text):
    path = tmp_path / "job.json"
    path.write_text(text)

    assert main(["refit", "judge", str(path)]) == 2
    assert "is no job of a refit" in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_no_error():
    words = [sys.executable, "-m", "pytest_pd.cli", "refit", "plan", "kimi_k2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, **pipes, env=os.environ | UNBUFFERED) as child:
        child.stdout.close()
        told = child.stderr.read()

    assert told == b""
    assert child.returncode == UNREAD


def ended(words, shell="", **variables):
    """Run a command below a shell's redirections; return its code and its stderr."""
    line = f"exec {sys.executable} -m pytest_pd.cli {words} {shell}"
    env = os.environ | variables
    done = subprocess.run(["sh", "-c", line], capture_output=True, env=env, timeout=60)
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize("variables", [{}, UNBUFFERED])
def test_output_on_a_full_disk_is_told(variables):
    code, told = ended("topologies local_1p1d", ">/dev/full", **variables)

    assert code == 2
    assert "cannot be written: No space left on device." in told
    assert "try: make room" in told
    assert "Traceback" not in told
    assert "ignored" not in told


def test_a_file_on_a_full_disk_is_told(capsys):
    assert main(["plan", "local_1p1d", "--lock", "/dev/full"]) == 2

    told = capsys.readouterr().err
    assert told.startswith("pytest-pd plan: A file cannot be written: No space left")


def test_a_closed_output_is_taken_as_not_wanted():
    assert ended("topologies local_1p1d", ">&-") == (0, "")


def test_an_output_of_ascii_takes_other_letters(tmp_path):
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ngröße: 1\n", encoding="utf-8")

    assert ended(f"topologies {path}", **plain) == (0, "")


def test_an_interrupt_while_a_command_is_imported_is_quiet(monkeypatch):
    def interrupted(_name):
        raise KeyboardInterrupt

    monkeypatch.setattr("pytest_pd.cli.import_module", interrupted)

    assert main(["topologies"]) == 130


def test_a_password_in_a_url_is_not_told(capsys):
    assert main(["load", "http://bob:s3cretpass@127.0.0.1:1"]) == 2

    told = capsys.readouterr().err
    assert "http://***@127.0.0.1:1" in told
    assert "s3cretpass" not in told


def test_a_secret_at_the_wrong_place_is_not_told(capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_planted0123456789")

    with pytest.raises(SystemExit, match="2"):
        main(["load", "http://127.0.0.1:1", "--timeout", "hf_planted0123456789"])
    assert main(["refit", "parse", "kimi_k2", "hf_planted0123456789", "-s", "1"]) == 2

    told = capsys.readouterr().err
    assert told.count("***") >= 2
    assert "hf_planted" not in told


@pytest.mark.parametrize(
    "words",
    [
        ["preflight", ""],
        ["plan", ""],
        ["fetch", "", "--to", "bundle"],
        ["topologies", ""],
        ["topologies", "--cluster", "*"],
        ["up", ""],
        ["up", "local_*"],
        ["refit", "plan", ""],
        ["refit", "plan", "*"],
        ["load", "http://127.0.0.1:1", "--workload", "*"],
    ],
)
def test_no_name_and_several_names_are_told(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    assert main(words) == 2
    assert re.search("is named|one is wanted", capsys.readouterr().err)


def test_an_empty_variable_names_no_cluster(monkeypatch, capsys):
    monkeypatch.setenv("PD_CLUSTER", "")

    assert main(["topologies", "local_1p1d"]) == 0
    assert "local_1p1d" in capsys.readouterr().out


@pytest.mark.parametrize("url", ["http://[", "http://127.0.0.1:99999", "http://a..b"])
@pytest.mark.parametrize("words", ["evals run {}", "load {} --model m"])
def test_what_is_no_url_is_told(url, words, capsys):
    assert main(words.format(url).split()) == 2
    assert url in capsys.readouterr().err
