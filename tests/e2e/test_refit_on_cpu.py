"""Weights really move between processes here, over gloo; needs torch."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import replace

import pytest

from pytest_pd.cli import main
from pytest_pd.errors import EngineMissing, InvalidRun
from pytest_pd.refit.files import pick, read_refit
from pytest_pd.refit.local import run_local, worker_python
from pytest_pd.refit.run import Settings, run_jobs, twin_jobs
from tests.services import require

INSTALL = "pip install 'pytest-pd[refit]', or PD_REFIT_PYTHON=a Python with torch"
KIMI = read_refit("kimi_k2")
QUICK = Settings(warmup=1, iterations=3)


@pytest.fixture(scope="module", autouse=True)
def _needs_torch():
    try:
        worker_python()
    except EngineMissing as error:
        require("torch", f"{error.fact} {INSTALL}")


@pytest.fixture
def run(tmp_path):
    """Run the twins of some scenarios and judge them."""

    def _run(numbers, *, name="kimi_k2", size="tiny", back=False, **changes):
        spec = read_refit(name)
        scenarios = list(pick(spec, numbers))
        if back:
            scenarios = [s.reversed() for s in scenarios]
        jobs = twin_jobs(spec, scenarios, size, tmp_path, replace(QUICK, **changes))
        return run_jobs(jobs, tmp_path, timeout_s=400)

    return _run


def assert_verified(outcomes):
    told = {o.name: (o.status, o.problems[:3]) for o in outcomes}
    assert all(o.status == "verified" for o in outcomes), told


def test_all_seven_twins_are_bit_exact_with_8_processes(run):
    outcomes = run(())

    assert_verified(outcomes)
    assert len(outcomes) == 7
    assert all(len(o.refit_s) == 3 and o.checked_elements for o in outcomes)


def test_all_seven_twins_are_bit_exact_with_16_processes(run):
    outcomes = run((), size="tiny16")

    assert_verified(outcomes)
    assert [o.target_ranks for o in outcomes] == [4, 4, 4, 8, 8, 16, 16]


def test_the_way_back_and_two_second_opinions(run):
    outcomes = run((6, 7), back=True, opinions=("round_trip", "dcp"))

    assert_verified(outcomes)
    assert all(
        o.opinions == {"round_trip": "agrees", "dcp": "agrees"} for o in outcomes
    )


@pytest.mark.parametrize("name", ["llama_3_1_8b", "qwen3_30b_a3b"])
def test_other_models_with_pipeline_stages_replicas_and_unsplit_experts(run, name):
    assert_verified(run((), name=name))


def test_a_plain_exchange_of_the_same_bytes_is_timed_beside(run):
    (outcome,) = run((6,), plain=True)

    assert_verified([outcome])
    assert len(outcome.plain_s) == 3
    assert outcome.plain_ratio > 0


@pytest.mark.parametrize(
    ("mutant", "status", "told"),
    [
        ("stride_one", "failed", "linear_fc1.weight"),
        ("expert_shift", "failed", "experts.linear_fc1.weight0"),
        ("drop_message", "failed", "planned"),
        ("lost_message", "failed", ""),
        ("stale_tensor", "failed", "iteration 1: embedding"),
        ("clock_skew", "invalid", "rank 7: its clock went"),
        ("noop", "failed", "never written"),
        ("dtype_change", "failed", "rank 7: iteration 0"),
    ],
)
def test_every_mutant_is_caught(run, mutant, status, told):
    (outcome,) = run((7,), mutant=mutant, timeout_s=10)

    assert outcome.status == status
    assert told in " ".join(outcome.problems)


def test_a_wrong_stride_passes_the_round_trip_so_that_is_no_judge(run):
    (outcome,) = run((2,), mutant="stride_one", opinions=("round_trip",))

    assert outcome.status == "failed"
    assert any("linear_fc1" in problem for problem in outcome.problems)


def test_ranks_that_fail_are_told_with_their_error(run):
    (outcome,) = run((3,), engine="pytest_pd.refit.no_such_module:engine")

    assert outcome.status == "failed"
    assert "no_such_module" in " ".join(outcome.problems)


def test_a_refit_that_hangs_is_ended_with_all_its_processes(tmp_path):
    settings = replace(QUICK, mutant="hang")
    jobs = twin_jobs(KIMI, pick(KIMI, [3]), "tiny", tmp_path, settings)

    with pytest.raises(InvalidRun, match="was not done after 10 s"):
        run_local(jobs, tmp_path, timeout_s=10)

    listed = subprocess.run(
        ["ps", "-eo", "args"], capture_output=True, text=True, check=True
    ).stdout
    assert str(tmp_path) not in listed


def test_peers_of_a_hanging_rank_give_up_and_say_so(run):
    (outcome,) = run((3,), mutant="hang", timeout_s=3)

    assert outcome.status == "failed"
    assert "gave no report" in " ".join(outcome.problems)


def test_reports_are_kept_where_asked(tmp_path, capsys):
    out = tmp_path / "kept"
    words = ["refit", "run", "kimi_k2", "-s", "1", "--scaled", "tiny"]

    code = main([*words, "--iterations", "2", "--warmup", "0", "--out", str(out)])

    assert code == 0
    assert "kimi_k2/tiny/1  verified" in capsys.readouterr().out
    (saved,) = json.loads((out / "outcomes.json").read_text())
    assert saved["status"] == "verified"
    assert (out / "0-scenario-1" / "rank-5.json").exists()


def test_a_mutant_makes_the_command_fail(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    words = ["refit", "run", "kimi_k2", "-s", "2", "--scaled", "tiny"]

    assert main([*words, "--iterations", "2", "--mutant", "noop"]) == 1

    assert "never written" in capsys.readouterr().out


def test_a_python_without_torch_is_refused_with_the_command(monkeypatch):
    monkeypatch.setenv("PD_REFIT_PYTHON", "/bin/false")

    with pytest.raises(EngineMissing) as caught:
        worker_python()

    assert "pytest-pd[refit]" in caught.value.hint


def test_an_engine_fed_like_megatrons_copy_services_moves_the_same_bits(run):
    outcomes = run((2, 7), engine="torch")

    assert_verified(outcomes)


def test_megatron_cores_planner_drives_the_same_refit(run):
    source = os.environ.get("PD_MEGATRON_SRC")
    if source is None:
        require(
            "megatron-core",
            "PD_MEGATRON_SRC is not set; pip download megatron-core==0.19.2 --no-deps "
            "--no-binary :all:, unpack it and name its folder",
        )

    assert_verified(run((2, 6), planner="megatron"))
