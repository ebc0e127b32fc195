"""The seven twins as jobs of a real Slurm, their ranks on two nodes."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from pytest_pd.errors import BackendMissing, EngineMissing, InvalidRun
from pytest_pd.refit.files import pick, read_refit
from pytest_pd.refit.local import worker_python
from pytest_pd.refit.run import Settings, judged, twin_jobs
from pytest_pd.refit.slurm import run_slurm
from tests import services_slurm
from tests.services import require

KIMI = read_refit("kimi_k2")
QUICK = Settings(warmup=0, iterations=2)


@pytest.fixture(scope="module", autouse=True)
def site(tmp_path_factory):
    if reason := services_slurm.missing():
        require("slurm", reason)
    try:
        worker_python()
    except EngineMissing as error:
        require("torch", f"{error.fact} {error.hint}")
    root = tmp_path_factory.mktemp("slurm")
    with services_slurm.slurm_site(root, 2) as made, made.as_default():
        yield made


def test_all_seven_twins_are_bit_exact_as_slurm_jobs(tmp_path, site):
    jobs = twin_jobs(KIMI, pick(KIMI, []), "tiny", tmp_path, QUICK)

    found = run_slurm(jobs, tmp_path, per_node=4, timeout_s=300)

    outcomes = [judged(*pair) for pair in zip(jobs, found, strict=True)]
    told = {o.name: (o.status, o.problems[:3]) for o in outcomes}
    assert [o.status for o in outcomes] == ["verified"] * 7, told
    hosts = {report.host for report in found[6].reports}
    nodes = {"n01", "n02"} if services_slurm.own_names() else {socket.gethostname()}
    assert hosts == nodes
    assert site.jobs() == []


def test_a_refusal_of_slurm_is_told_with_its_log(tmp_path):
    jobs = twin_jobs(KIMI, pick(KIMI, [3]), "tiny", tmp_path, QUICK)

    with pytest.raises(InvalidRun, match="srun ended with") as caught:
        run_slurm(jobs, tmp_path, extra=["--partition=no_such_partition"])

    assert "no_such_partition" in Path(str(caught.value.where)).read_text() or (
        "invalid partition" in Path(str(caught.value.where)).read_text()
    )


def test_without_srun_the_backend_is_missing(tmp_path, monkeypatch):
    python = worker_python()
    monkeypatch.setenv("PD_REFIT_PYTHON", python)
    monkeypatch.setenv("PATH", str(tmp_path))
    jobs = twin_jobs(KIMI, pick(KIMI, [3]), "tiny", tmp_path, QUICK)

    with pytest.raises(BackendMissing, match="srun"):
        run_slurm(jobs, tmp_path)
