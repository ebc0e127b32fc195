"""How a job ends, by what Slurm answers."""

import pytest

from pytest_pd.errors import ProvisionError
from pytest_pd.provision import slurm_job
from pytest_pd.provision.slurm_job import end_job
from pytest_pd.provision.slurm_step import JobHandle
from pytest_pd.provision.slurm_text import JobView
from pytest_pd.provision.slurm_watch import JobWatch


class Slurm:
    """One job that stays in its state, and its steps."""

    def __init__(self, state, steps):
        self.state, self.left = state, steps
        self.cancelled = []

    def queue(self, jobs):
        return {job: JobView(job, self.state) for job in jobs}

    def steps(self, job):
        return self.left

    def cancel(self, target):
        self.cancelled.append(target)


@pytest.fixture(autouse=True)
def _hurried(monkeypatch):
    monkeypatch.setattr(slurm_job, "END_S", 0.1)


def ended(slurm):
    watch = JobWatch(slurm)
    watch.add("7")
    watch.view("7", now=True)
    end_job(JobHandle("7", slurm, watch))


def test_an_epilog_that_takes_long_is_no_failure(caplog):
    slurm = Slurm("COMPLETING", {"batch": "7.batch", "extern": "7.extern"})

    ended(slurm)

    assert slurm.cancelled == ["7"]
    assert "epilog" in caplog.text


@pytest.mark.parametrize(
    ("state", "steps"),
    [
        ("COMPLETING", {"pd-r1-k2-router": "7.0"}),
        ("COMPLETING", None),
        ("PENDING", {}),
    ],
)
def test_a_job_that_may_still_run_something_is_one(state, steps):
    with pytest.raises(ProvisionError, match="job 7 is still there"):
        ended(Slurm(state, steps))
