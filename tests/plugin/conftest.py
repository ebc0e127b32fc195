"""A user's project in miniature, with topologies that cost nothing to bring up."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

CONFTEST = """
import os
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

import pytest_pd.plugin.bringup as bringup
from pytest_pd.errors import InfrastructureLost, ProcessDied, ProvisionError
from pytest_pd.plugin.options import add_plain_options
from pytest_pd.provision.deployment import Deployment

LEDGER = Path(__file__).parent / "ledger.txt"


def pytest_addoption(parser):
    add_plain_options(parser)


def note(line):
    with LEDGER.open("a") as file:
        file.write(line + chr(10))


class FakePage:
    texts = {"prefill-0": "a 1"}


class FakeDeployment:
    def __init__(self, name, plan):
        self.name, self.plan, self.url = name, plan, plan.url

    def evidence(self):
        return FakePage()

    def check_alive(self):
        if (LEDGER.parent / f"dead-{self.name}").exists():
            raise ProcessDied(f"'decode-0' of {self.name} exited with code 0.")
        if (LEDGER.parent / f"lost-{self.name}").exists():
            raise InfrastructureLost(f"Node n03 of {self.name} is gone.")

    def seconds_left(self):
        told = LEDGER.parent / f"left-{self.name}"
        return float(told.read_text()) if told.exists() else None


@contextmanager
def fake_bring_up(session, name):
    bringup.claim(bringup.make_context(session, name))
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    note(f"UP {name} {worker}")
    if os.environ.get("FAKE_BROKEN") == name:
        raise ProvisionError(
            f"{name} cannot start.", hint="do this", where="some.log"
        )
    try:
        yield FakeDeployment(name, session.choice.plans[name])
    finally:
        note(f"DOWN {name} {worker}")
        if os.environ.get("FAKE_SLOW"):
            time.sleep(60)
        if os.environ.get("FAKE_STUCK") == name:
            raise ProvisionError(f"{name} cannot be stopped.")


bringup.bring_up = fake_bring_up
"""

SUITE = """
import pytest


def test_one(deployment):
    pass


@pytest.mark.parametrize("n", [1, 2])
def test_many(deployment, n):
    pass
"""


class Project:
    """A project folder of pytester, and the ledger of what came up in it."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        pytester.makeconftest(CONFTEST)
        pytester.makeini("[pytest]\naddopts = --strict-markers -p no:randomly\n")

    def suite(self, text: str = SUITE) -> None:
        """Write the only test module."""
        self.pytester.makepyfile(test_suite=text)

    def run(self, *args: str) -> pytest.RunResult:
        """Run pytest in a process of its own, as a user does."""
        return self.pytester.runpytest_subprocess(*args)

    @property
    def ledger(self) -> list[str]:
        """Lines ``UP name worker`` and ``DOWN name worker``, in order."""
        file = self.pytester.path / "ledger.txt"
        return file.read_text().splitlines() if file.exists() else []

    def ups(self) -> list[str]:
        """Names in the order in which they came up."""
        return [line.split()[1] for line in self.ledger if line.startswith("UP")]

    def downs(self) -> list[str]:
        """Names in the order in which they went down."""
        return [line.split()[1] for line in self.ledger if line.startswith("DOWN")]


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    # pytest prints longer summaries in CI
    ours = ("CI", "BUILD_NUMBER", "PD_CLUSTER")
    for name in (*ours, "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"):
        monkeypatch.delenv(name, raising=False)
    return Project(pytester)
