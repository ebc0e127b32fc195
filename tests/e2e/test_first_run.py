"""The main job from end to end: up, tested, recorded, down; hooks, keep, attach."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_pd.provision.identity import marked_with

SUITES = Path(__file__).parents[2] / "suites"

CONFTEST = """
from dataclasses import replace
from pathlib import Path


def pytest_pd_modify_plan(config, plan):
    return replace(plan, notes=(*plan.notes, "changed by a hook"))


def pytest_pd_deployment_ready(config, deployment):
    Path("ready.txt").write_text(deployment.url)


def pytest_pd_deployment_failed(config, plan, error):
    Path("failed.txt").write_text(f"{plan.name}: {error.fact}")


def pytest_pd_provenance(config, deployment, info):
    info["rack"] = "r7"
"""

RECORDING = """
from pytest_pd.measure.measurement import Measurement

def test_a(deployment, record, ask, prompts):
    assert ask(prompts.make("a", tokens=40).text).ok
    assert "changed by a hook" in deployment.plan.notes
    record([Measurement("ttft", (0.1, 0.2))])
"""


@pytest.fixture
def pytest_in(tmp_path):
    """Run pytest in an empty project of its own."""

    def _run(*words):
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:randomly", *map(str, words)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return _run


def run_of(folder: Path) -> Path:
    (run,) = (folder / "runs").iterdir()
    return run


def test_a_run_is_kept_and_nothing_is_left_running(tmp_path, pytest_in):
    done = pytest_in(
        SUITES / "correctness" / "test_api.py", "--pd-topology", "local_agg"
    )

    assert done.returncode == 0, done.stdout
    run = run_of(tmp_path)
    kept = {path.name for path in (run / "local_agg").iterdir()}
    assert {"logs", "metrics", "environment.json", "plan.lock.yaml"} <= kept
    verdict = json.loads((run / "verdict.json").read_text())
    assert verdict["exit_status"] == 0
    assert verdict["topologies"]["local_agg"]["passed"] > 5
    assert list(marked_with(f"{verdict['run_id']}/")) == []


def test_hooks_change_see_and_add(tmp_path, pytest_in):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_a.py").write_text(RECORDING)

    done = pytest_in("--benchmark-json=out.json", "--pd-label", "night 7")

    assert done.returncode == 0, done.stdout
    assert (tmp_path / "ready.txt").read_text().startswith("http://")
    (entry,) = json.loads((tmp_path / "out.json").read_text())["benchmarks"]
    info = entry["extra_info"]
    assert info["rack"] == "r7"
    assert info["label"] == "night 7"
    assert info["mode"] == "real"
    assert info["topology_hash"]
    lines = (run_of(tmp_path) / "local_1p1d" / "entries.jsonl").read_text().splitlines()
    assert [json.loads(line)["fullname"] for line in lines] == [entry["fullname"]]


def test_failing_bring_up_calls_its_hook(tmp_path, pytest_in):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_a.py").write_text(RECORDING)
    text = (SUITES.parent / "fixtures" / "topologies" / "local_agg.yaml").read_text()
    (tmp_path / "bad.yaml").write_text(
        text.replace("fixtures/models/tiny", "/no/such/model")
    )

    done = pytest_in("--pd-topology", "bad.yaml")

    assert done.returncode == 1
    assert "exited with code" in (tmp_path / "failed.txt").read_text()


def test_keep_then_attach_then_down(tmp_path, pytest_in):
    suite = SUITES / "correctness" / "test_api.py"
    first = pytest_in(suite, "--pd-topology", "local_agg", "--pd-keep=5m")
    assert first.returncode == 0, first.stdout
    run_id = json.loads((run_of(tmp_path) / "verdict.json").read_text())["run_id"]
    up = list(marked_with(f"{run_id}/"))
    try:
        again = pytest_in(suite, "--pd-attach", run_id, "-k", "stream")
    finally:
        subprocess.run(
            [sys.executable, "-m", "pytest_pd.cli", "down", run_id],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )

    assert up
    assert again.returncode == 0, again.stdout
    assert list(marked_with(f"{run_id}/")) == []


def test_the_lock_of_a_run_is_a_topology(tmp_path, pytest_in):
    suite = SUITES / "correctness" / "test_api.py"
    pytest_in(suite, "--pd-topology", "local_agg", "-k", "listed")
    lock = run_of(tmp_path) / "local_agg" / "plan.lock.yaml"

    done = pytest_in(suite, "--pd-topology", lock, "-k", "listed")

    assert done.returncode == 0, done.stdout + done.stderr


def test_plan_option_prints_and_starts_nothing(tmp_path, pytest_in):
    done = pytest_in("--pd-plan", "--pd-topology", "local_2p1d")

    assert done.returncode == 0
    assert "local_2p1d: 1 node" in done.stdout
    assert "prefill-1" in done.stdout
    assert not (tmp_path / "runs").exists()


def test_xdist_records_the_same_entries(tmp_path, pytest_in):
    """Correctness beside each other, one measured point per topology."""
    words = [
        SUITES / "performance" / "test_sweep.py",
        *("--pd-topology", "local_1p1d,local_agg", "-k", "closed_loop"),
    ]

    plain = pytest_in(*words, "--benchmark-json=plain.json")
    spread = pytest_in(*words, "-n", "2", "--benchmark-json=spread.json")

    def names(file):
        benchmarks = json.loads((tmp_path / file).read_text())["benchmarks"]
        return sorted(entry["fullname"] for entry in benchmarks)

    assert names("plain.json"), plain.stdout
    if "invalid" in plain.stdout + spread.stdout:  # of a busy machine: no entry
        assert {plain.returncode, spread.returncode} <= {0, 1}
    else:
        assert names("plain.json") == names("spread.json")
