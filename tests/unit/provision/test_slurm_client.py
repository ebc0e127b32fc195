"""What is made of a controller that does not answer."""

import getpass
import subprocess

import pytest

from pytest_pd.errors import InfrastructureLost, ProvisionError
from pytest_pd.provision import slurm, slurm_job
from pytest_pd.provision.reap import reap
from pytest_pd.provision.rundir import RunDir
from pytest_pd.provision.slurm_client import NO_ANSWER, SlurmClient
from pytest_pd.provision.slurm_job import submitted
from pytest_pd.provision.slurm_text import JobRequest
from pytest_pd.spec.site_slurm import SlurmSite

AWAY = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"


class Answers(SlurmClient):
    """A Slurm whose commands all end in one way."""

    def __init__(self, code, out="", err=""):
        super().__init__()
        self.answer = code, out, err
        self.asked = []

    def check(self):
        pass

    def run(self, *words, **_):
        self.asked.append(words)
        return subprocess.CompletedProcess(words, *self.answer)


def test_jobs_that_nobody_lists_are_not_taken_for_ended():
    with pytest.raises(InfrastructureLost, match="Unable to contact"):
        Answers(1, err=AWAY).named("pd-r1-k2")


def test_no_job_of_a_name_is_an_answer():
    assert Answers(0).named("pd-r1-k2") == []


@pytest.mark.parametrize(
    ("code", "err"),
    [
        (NO_ANSWER, "sbatch did not answer within 60 s"),
        (
            1,
            "sbatch: error: Batch job submission failed: Socket timed out on send/recv",
        ),
    ],
)
def test_a_submission_without_an_answer_is_no_refusal(code, err):
    with pytest.raises(InfrastructureLost, match="Slurm does not answer: "):
        Answers(code, err=err).submit(["sbatch"], "")


class Interrupted(Answers):
    """A Slurm whose `submit` is left by an error."""

    def __init__(self, error):
        super().__init__(0)
        self.error = error

    def submit(self, *_):
        raise self.error


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), InfrastructureLost("away"), ProvisionError("no")]
)
def test_a_job_whose_id_nobody_knows_is_cancelled_by_its_name(error, monkeypatch):
    monkeypatch.setattr(slurm_job.time, "sleep", lambda _: None)
    client = Interrupted(error)
    request = JobRequest("pd-r1-k2", "r1", 1, 0, "/f", "/f/lease", 5.0)

    with pytest.raises(type(error)):
        submitted(client, SlurmSite(), request)

    assert set(client.asked) == {
        ("scancel", f"--user={getpass.getuser()}", "--name=pd-r1-k2")
    }


def test_reap_keeps_a_run_whose_job_cannot_be_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "SlurmClient", lambda: Answers(1, err=AWAY))
    run = RunDir(tmp_path / "20260101T000000Z-r1r1r1r1" / "k2")
    run.create()
    run.write_manifest(
        run_id="r1r1r1r1",
        lease_ttl_s=1.0,
        backend="slurm",
        cluster={"name": "c", "backend": "slurm", "hardware": "gb200", "slurm": {}},
    )

    (found,) = reap([run.path.parent])

    assert "Unable to contact" in found.trouble
    assert "ended_s" not in run.read_manifest()
