"""A host that knows no name and no home of its user is told of, or got along with."""

from __future__ import annotations

import os
import pwd

import pytest

from pytest_pd.cli import main
from pytest_pd.errors import SpecError
from pytest_pd.user import expand, user_name


@pytest.fixture
def nobody(monkeypatch):
    """A uid as in a container: no entry in passwd and nothing in the environment."""

    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("PD_CACHE", raising=False)


def test_a_user_without_a_name_is_a_number(nobody):
    assert user_name() == str(os.getuid())


def test_a_home_that_is_not_known_is_told():
    with pytest.raises(SpecError, match="'~nosuchuser/x' begins with a home folder"):
        expand("~nosuchuser/x")


def test_a_home_is_written_out(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")

    assert str(expand("~/x")) == "/home/me/x"


@pytest.mark.parametrize("words", ["preflight local_1p1d", "engines list"])
def test_a_host_without_a_home_is_told(words, nobody, capsys):
    assert main(words.split()) == 2
    assert "set HOME" in capsys.readouterr().err


def test_a_path_of_an_unknown_user_is_told(capsys):
    assert main(["plan", "~nosuchuser/x.yaml"]) == 2
    assert "'~nosuchuser/x.yaml'" in capsys.readouterr().err
