"""No kind of report shows a secret: not on the terminal, not in JUnit, not on disk."""

from __future__ import annotations

import pytest

PLANTED = {
    "HF_TOKEN": "hf_planted0123456789abcdef",
    "DEPLOY_KEY": "-----BEGIN KEY-----\nkeyplanted0123\nkeyplanted4567\n",
    "MYSQL_PWD": 'pla"nt\\ed47114711',
}
PIECES = ("hf_plan", "keyplanted", "ed471147")

SUITE = """
import os
import sys
import warnings
from pathlib import Path

import pytest

TOKEN = os.environ["HF_TOKEN"]
ALL = [os.environ[name] for name in ("HF_TOKEN", "DEPLOY_KEY", "MYSQL_PWD")]

def test_locals(deployment):
    found = {"a": 1, "token": TOKEN, "rest": "x" * 400}
    padded = {f"key-{n}": ALL for n in range(20)}
    assert found == padded

def test_xfail(deployment):
    pytest.xfail(f"because of {ALL}")

@pytest.mark.xfail(reason=f"marked {TOKEN}", strict=True)
def test_passes_unexpectedly(deployment):
    pass

@pytest.mark.xfail(reason=f"marked {TOKEN}")
def test_fails_as_expected(deployment):
    assert TOKEN == ""

@pytest.mark.skip(reason=f"skipped {TOKEN}")
def test_skip(deployment):
    pass

def test_skip_inside(deployment):
    pytest.skip(f"skipped {ALL}")

def test_warning(deployment):
    warnings.warn(f"warned {ALL}")

def test_property(deployment, record_property):
    record_property("token", TOKEN)
    record_property("all", ALL)
    record_property("place", Path(TOKEN))
    record_property("number", 7)

def test_lines(deployment):
    print(os.environ["DEPLOY_KEY"])
    raise ValueError(os.environ["DEPLOY_KEY"])

def test_passed(deployment):
    print("printed", TOKEN)
"""

BROKEN = """
import os
import warnings

token = os.environ["HF_TOKEN"]
warnings.warn(f"warned {token}")
raise ValueError(repr(dict(os.environ)))
"""

SKIPPED = """
import os
import pytest

pytest.skip("none " + os.environ["HF_TOKEN"], allow_module_level=True)
"""

CONFTEST = """
import os
import pytest

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    report = yield
    report.sections.append(("added", "by a project: " + os.environ["HF_TOKEN"]))
    return report
"""


@pytest.fixture
def planted(project, monkeypatch):
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    project.suite(SUITE)
    return project


def leaks(project, result):
    """Return where a piece of a secret stands, with the text around it."""
    texts = {"the terminal": f"{result.stdout.str()}\n{result.stderr.str()}"}
    for path in project.pytester.path.rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            texts[path.name] = path.read_text(errors="replace")
    return [
        f"{name}: {text[max(0, text.find(piece) - 80) :][:160]}"
        for name, text in texts.items()
        for piece in PIECES
        if piece in text
    ]


@pytest.mark.parametrize("more", [(), ("-n1",), ("-vv",)])
def test_no_report_of_a_test_shows_a_secret(planted, more):
    sub = planted.pytester.mkdir("below")
    (sub / "conftest.py").write_text(CONFTEST)
    (sub / "test_below.py").write_text("def test_b(deployment): assert 0")

    result = planted.run(
        *("-rA", "--showlocals", "-p", "no:cacheprovider"),
        *("--junitxml=junit.xml", "-o", "junit_family=xunit1"),
        *more,
    )

    result.assert_outcomes(
        passed=3, failed=4, skipped=2, xfailed=2, warnings=1, errors=0
    )
    assert leaks(planted, result) == []
    junit = (planted.pytester.path / "junit.xml").read_text()
    assert 'name="number" value="7"' in junit
    assert 'name="token" value="***"' in junit
    assert "skipped ***" in result.stdout.str()
    assert "warned" in result.stdout.str()


@pytest.mark.parametrize("more", [(), ("--continue-on-collection-errors",)])
def test_no_report_of_a_collection_shows_a_secret(planted, more):
    planted.pytester.makepyfile(test_a_broken=BROKEN, test_a_skipped=SKIPPED)

    result = planted.run(
        *("-rA", "--showlocals", "-p", "no:cacheprovider"),
        *("--junitxml=junit.xml", "-o", "junit_family=xunit1"),
        *more,
    )

    assert "ValueError" in result.stdout.str()
    assert "none ***" in (planted.pytester.path / "junit.xml").read_text()
    assert leaks(planted, result) == []


def test_a_report_without_a_secret_keeps_its_colours(planted):
    planted.suite("def test_a(deployment): assert 1 == 2")

    result = planted.run("--color=yes")

    assert "\x1b[31mE  " in result.stdout.str()


@pytest.mark.parametrize("more", [(), ("--pd-plan",), ("-n1",)])
def test_a_password_in_a_url_is_not_told(planted, more):
    result = planted.run("--pd-attach", "http://bob:s3cretpass@127.0.0.1:1", *more)

    assert result.ret != 0
    text = result.stdout.str() + result.stderr.str()
    assert "http://***@127.0.0.1:1" in text
    assert "s3cretpass" not in text
