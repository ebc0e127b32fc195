"""Nights in the background: what their shell ignores, and what they still hear."""

from __future__ import annotations

import signal
from contextlib import contextmanager

from pytest_pd.nightly.launch import run_tests


@contextmanager
def ignored(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)


def attempt(tmp_path, body):
    suite = tmp_path / "test_it.py"
    suite.write_text(f"import os, signal\n\ndef test_it():\n    {body}\n")
    words = (str(suite), "-p", "no:cacheprovider")
    return run_tests(words, tmp_path / "attempt", tmp_path / "run", limit_s=60)


def test_pytest_hears_ctrl_c_though_a_shell_ignores_it_for_the_night(tmp_path):
    with ignored(signal.SIGINT):
        made = attempt(
            tmp_path, "assert signal.getsignal(signal.SIGINT) != signal.SIG_IGN"
        )

    assert made.exit_code == 0


def test_a_night_under_nohup_goes_on_after_the_logout(tmp_path):
    with ignored(signal.SIGHUP):
        made = attempt(tmp_path, "os.kill(os.getppid(), signal.SIGHUP)")

    assert made.exit_code == 0
