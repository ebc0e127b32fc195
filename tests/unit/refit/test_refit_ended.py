"""What ran the ranks ended badly: no report of an earlier run stands for this one."""

from __future__ import annotations

import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

import pytest_pd
from pytest_pd.cli import main
from pytest_pd.errors import InfrastructureLost, InvalidRun
from pytest_pd.refit import local, slurm, ssh
from pytest_pd.refit.files import pick, read_refit
from pytest_pd.refit.job import RankReport, lay_out
from pytest_pd.refit.run import (
    Settings,
    judged,
    planned_traffic,
    run_jobs,
    twin_jobs,
)
from pytest_pd.spec.site_ssh import SshSite

KIMI = read_refit("kimi_k2")


@pytest.fixture
def job(tmp_path):
    (job,) = twin_jobs(KIMI, pick(KIMI, [3]), "tiny", tmp_path, Settings())
    return job


def save_good_reports(job, folder):
    folder.mkdir(parents=True)
    traffic = planned_traffic(job).elements * job.element_bytes
    for rank in range(job.world):
        times = [0.030] * job.iterations
        report = RankReport(rank, samples_s=times, launch=job.launch)
        report.sent = dict(enumerate(map(int, traffic[rank])))
        report.received = dict(enumerate(map(int, traffic[:, rank])))
        report.save(folder)


def program(path, lines):
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)


class Worker:
    """Stands for torch, srun and a host; its ranks report what lies in `good`."""

    def __init__(self, root, job, monkeypatch):
        self.good, self.job, self.root = root / "good", job, root
        self._copy = f"cp {self.good}/* {job.out_dir}"
        monkeypatch.setenv("PATH", f"{root}/bin:/usr/bin:/bin")
        monkeypatch.setenv(local.PYTHON_VARIABLE, str(root / "bin" / "python"))
        monkeypatch.setattr(ssh, "remote_command", self._remote)

    def run(self, launch, code):
        self.code = code
        program(self.root / "bin/srun", f"{self._copy}; exit {code}")
        probe = '[ "$1" = -c ] && exit 0'
        program(self.root / "bin/python", f"{probe}; {self._copy}; exit {code}")
        jobs, folder = [self.job], self.root
        if launch == "ssh":
            site = SshSite.model_validate({"hosts": [{"host": "a"}]})
            return ssh.run_ssh(jobs, folder, site)
        return {"local": local.run_local, "slurm": slurm.run_slurm}[launch](
            jobs, folder
        )

    @contextmanager
    def _remote(self, *_):
        shutil.copytree(self.good, self.job.out_dir, dirs_exist_ok=True)
        yield self

    def wait(self, _silent_s):
        return self.code


@pytest.fixture
def worker(tmp_path, job, monkeypatch):
    return Worker(tmp_path, job, monkeypatch)


@pytest.mark.parametrize("launch", ["local", "slurm", "ssh"])
@pytest.mark.parametrize(("code", "status"), [(0, "verified"), (3, "failed")])
def test_good_reports_of_ranks_that_ended_badly_are_a_failure(
    worker, job, launch, code, status
):
    save_good_reports(job, worker.good)

    (ran,) = worker.run(launch, code)

    outcome = judged(job, ran)
    assert outcome.status == status, outcome.problems
    assert len(ran.reports) == job.world
    assert all("ended with" in problem for problem in outcome.problems)


@pytest.mark.parametrize("launch", ["local", "slurm", "ssh"])
def test_reports_of_an_earlier_run_are_none_of_this_one(worker, job, launch):
    save_good_reports(job, Path(job.out_dir))
    worker.good.mkdir()

    with pytest.raises(InvalidRun, match="no rank gave a report"):
        worker.run(launch, 1)


def test_the_command_line_does_not_verify_a_refit_that_never_ran(
    worker, job, tmp_path, capsys
):
    save_good_reports(job, Path(job.out_dir))
    (tmp_path / "outcomes.json").write_text("[]")
    program(tmp_path / "bin/srun", "exit 1")
    program(tmp_path / "bin/python", "exit 0")
    words = f"refit run kimi_k2 -s 3 --scaled tiny --launch slurm --out {tmp_path}"

    assert main(words.split()) == 2

    assert "srun ended with 1" in capsys.readouterr().err
    assert not (tmp_path / "outcomes.json").exists()


def test_a_meeting_point_of_an_earlier_run_is_removed(job):
    folder = Path(job.out_dir)
    folder.mkdir()
    (folder / "rendezvous").touch()

    lay_out(job)

    assert [path.name for path in folder.iterdir()] == ["job.json"]


def test_a_rank_that_told_its_error_explains_the_code_of_all_jobs(
    tmp_path, monkeypatch
):
    jobs = twin_jobs(KIMI, pick(KIMI, [3, 6]), "tiny", tmp_path / "out", Settings())
    for job in jobs:
        save_good_reports(job, tmp_path / "good" / Path(job.out_dir).name)
    broken = tmp_path / "good" / Path(jobs[1].out_dir).name
    RankReport(0, error="no room", launch=jobs[1].launch).save(broken)
    probe = '[ "$1" = -c ] && exit 0'
    copied = f"cp -r {tmp_path}/good/. {tmp_path}/out"
    program(tmp_path / "bin/python", f"{probe}; {copied}; exit 1")
    monkeypatch.setenv(local.PYTHON_VARIABLE, str(tmp_path / "bin/python"))

    outcomes = run_jobs(jobs, tmp_path / "out")

    assert [o.status for o in outcomes] == ["verified", "failed"]
    assert outcomes[1].problems == ("rank 0: no room",)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rank": 0, "samples_s": "x"}'])
def test_a_damaged_report_costs_its_own_refit_alone(tmp_path, monkeypatch, text):
    jobs = twin_jobs(KIMI, pick(KIMI, [3, 6]), "tiny", tmp_path / "out", Settings())
    for job in jobs:
        save_good_reports(job, tmp_path / "good" / Path(job.out_dir).name)
    damaged = tmp_path / "good" / Path(jobs[1].out_dir).name / "rank-0.json"
    damaged.write_text(text)
    probe = '[ "$1" = -c ] && exit 0'
    copied = f"cp -r {tmp_path}/good/. {tmp_path}/out"
    program(tmp_path / "bin/python", f"{probe}; {copied}")
    monkeypatch.setenv(local.PYTHON_VARIABLE, str(tmp_path / "bin/python"))

    outcomes = run_jobs(jobs, tmp_path / "out")

    assert [o.status for o in outcomes] == ["verified", "failed"]
    assert "rank-0.json is no report of a rank" in outcomes[1].problems[0]


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """Give two jobs, and a Python whose ranks report for the first and then sleep."""
    jobs = twin_jobs(KIMI, pick(KIMI, [3, 6]), "tiny", tmp_path / "out", Settings())
    save_good_reports(jobs[0], tmp_path / "good")
    first, second = (job.out_dir for job in jobs)
    told = f"cp {tmp_path}/good/* {first}; touch {first}/rank-0.log"
    probe = '[ "$1" = -c ] && exit 0'
    late = f"touch {second}/rank-0.log; exec sleep 60"
    program(tmp_path / "bin/python", f"{probe}; {told}; {late}")
    monkeypatch.setenv(local.PYTHON_VARIABLE, str(tmp_path / "bin/python"))
    return jobs


def test_a_refit_that_is_late_does_not_cost_the_one_before_it(pair, tmp_path):
    outcomes = run_jobs(pair, tmp_path / "out", timeout_s=1)

    assert [o.status for o in outcomes] == ["verified", "failed"]
    assert "was not done after 1 s" in outcomes[1].problems[0]


def test_reports_of_a_refit_that_did_not_end_in_time_are_no_success(pair, tmp_path):
    with pytest.raises(InvalidRun, match="was not done after 1 s"):
        run_jobs(pair[:1], tmp_path / "out", timeout_s=1)


def test_a_lost_host_does_not_cost_the_refits_that_were_done(
    tmp_path, job, monkeypatch
):
    save_good_reports(job, tmp_path / "good")
    (lost,) = twin_jobs(KIMI, pick(KIMI, [3]), "tiny", tmp_path / "lost", Settings())
    command = Worker(tmp_path, job, monkeypatch)
    command.code = 0

    def remote(site, host, words, log):
        if log.is_relative_to(tmp_path / "lost"):
            raise InfrastructureLost("host 'a' went away.", where=log)
        return command._remote()

    monkeypatch.setattr(ssh, "remote_command", remote)
    site = SshSite.model_validate({"hosts": [{"host": "a"}]})

    found = ssh.run_ssh([job, lost], tmp_path, site)

    assert [len(ran.reports) for ran in found] == [job.world, 0]
    assert "went away" in found[1].ended


def test_a_srun_that_failed_does_not_cost_the_other_refits(tmp_path, job, monkeypatch):
    save_good_reports(job, tmp_path / "good")
    (lost,) = twin_jobs(KIMI, pick(KIMI, [3]), "tiny", tmp_path / "lost", Settings())
    Worker(tmp_path, job, monkeypatch)
    own = f"[ $PWD = {job.out_dir} ] || exit 7"
    program(tmp_path / "bin/srun", f"{own}; cp {tmp_path}/good/* .")
    program(tmp_path / "bin/python", "exit 0")

    found = slurm.run_slurm([job, lost], tmp_path)

    assert [len(ran.reports) for ran in found] == [job.world, 0]
    assert "srun ended with 7" in found[1].ended


def test_a_slurm_job_that_is_late_is_ended_and_told(tmp_path, job, monkeypatch):
    Worker(tmp_path, job, monkeypatch)
    program(tmp_path / "bin/srun", 'echo "$@"; exec sleep 60')
    program(tmp_path / "bin/python", "exit 0")

    with pytest.raises(InvalidRun, match=r"was not done after 0.5 s") as caught:
        slurm.run_slurm([job], tmp_path, timeout_s=0.5)

    assert "--time=1 " in caught.value.where.read_text()


def test_the_time_out_of_the_command_line_is_for_slurm_too(
    tmp_path, job, monkeypatch, capsys
):
    Worker(tmp_path, job, monkeypatch)
    program(tmp_path / "bin/srun", "exec sleep 20")
    program(tmp_path / "bin/python", "exit 0")
    words = f"refit run kimi_k2 -s 3 --scaled tiny --launch slurm --out {tmp_path}"

    assert main([*words.split(), "--timeout-s", "0.5"]) == 2

    assert "was not done after 0.5 s" in capsys.readouterr().err


@pytest.mark.parametrize("launch", ["slurm", "ssh"])
def test_no_ranks_per_node_are_refused(launch, tmp_path, capsys):
    words = f"refit run kimi_k2 -s 3 --scaled tiny --launch {launch} --per-node 0"

    assert main([*words.split(), "--out", str(tmp_path)]) == 2

    assert "--per-node 0 places no rank" in capsys.readouterr().err


@pytest.mark.parametrize("earlier", ["nowhere", "elsewhere"])
def test_workers_import_this_package_and_not_that_of_an_earlier_run(tmp_path, earlier):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "import").mkdir()
    link = tmp_path / "import" / "pytest_pd"
    link.symlink_to(tmp_path / earlier)

    for _ in range(2):
        home = local.worker_environment(tmp_path)["PYTHONPATH"]

    assert [path.resolve() for path in Path(home).iterdir()] == [
        Path(pytest_pd.__file__).resolve().parent
    ]


def test_the_log_that_a_message_names_is_still_there(tmp_path, monkeypatch, capsys):
    probe = '[ "$1" = -c ] && exit 0'
    program(tmp_path / "bin/python", f"{probe}; echo no room; exit 3")
    monkeypatch.setenv(local.PYTHON_VARIABLE, str(tmp_path / "bin/python"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    assert main(["refit", "run", "kimi_k2", "-s", "3", "--scaled", "tiny"]) == 2

    (named,) = re.findall(r"see: (.*)", capsys.readouterr().err)
    assert Path(named).read_text() == "no room\n"


def test_a_refused_run_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    assert (
        main(["refit", "run", "kimi_k2", "--scaled", "tiny", "--opinion", "dpc"]) == 2
    )

    assert not list(tmp_path.glob("pd-refit-*"))
