"""What is told of a bring-up holds no secret, masked in a log or not yet."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_pd.errors import ProcessDied, ReadyTimeout
from pytest_pd.probe.completion import judge
from pytest_pd.probe.http import Answer
from pytest_pd.probe.logs import LINE_SHOWN, first_error
from pytest_pd.provision import bringup as module
from pytest_pd.provision.deploy import deploy
from pytest_pd.provision.deployment import Deployment
from pytest_pd.provision.local import LocalBackend
from pytest_pd.provision.rundir import RunDir, make_run_id
from pytest_pd.secret import redact
from pytest_pd.spec.cluster import ClusterSpec
from tests.kit import plan_of, service, toy_topology

PLAIN = "plain-planted-5566778899"
TOKEN = "hf_planted0123456789abcdef"


@pytest.fixture(autouse=True)
def planted(monkeypatch):
    monkeypatch.setenv("A_PLAIN_NAME", PLAIN)
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def test_the_end_of_a_log_that_is_not_masked_yet(tmp_path):
    log = tmp_path / "one.log"
    log.write_text(f"starting with {TOKEN}\nERROR no such key {PLAIN}\n")
    plan = plan_of([service("one", "x", env_from_host=("A_PLAIN_NAME",))])
    process = SimpleNamespace(exit_code=lambda: 1, log=log)
    deployment = Deployment(plan, "r", tmp_path, {"one": process})

    with pytest.raises(ProcessDied) as caught:
        deployment.check_alive()

    assert "no such key ***" in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert PLAIN not in repr(caught.value)


def test_what_a_router_answers_before_the_first_token(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "one_token", lambda *_, **__: f"HTTP 500: {TOKEN}")
    monkeypatch.setattr(module, "FIRST_TOKEN_BUDGET_S", 0.3)
    context = RunDir(Path(tmp_path) / "run").context(make_run_id(), 5.0)
    lines = []
    up = deploy(
        toy_topology(),
        LocalBackend(),
        ClusterSpec(name="local"),
        context,
        progress=lines.append,
    )

    with pytest.raises(ReadyTimeout, match=r"HTTP 500: \*\*\*"), up:
        pass

    assert any("HTTP 500: ***" in line for line in lines)
    assert not any(TOKEN in line for line in lines)


def test_where_an_answer_is_cut_can_be_seen():
    body = f"{'x' * 280} {TOKEN}"

    said = judge(Answer(500, body.encode()))

    assert said.endswith("…")
    assert "hf_plan" not in redact(said, (TOKEN,))


def test_where_the_first_error_is_cut_can_be_seen(tmp_path):
    log = tmp_path / "one.log"
    log.write_text(f"ERROR {'x' * (LINE_SHOWN - 20)} {TOKEN}\n")

    said = str(first_error({"one": log}))

    assert said.endswith("…")
    assert "hf_plan" not in redact(said, (TOKEN,))
