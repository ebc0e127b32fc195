"""A harness that is killed on a cluster leaves no job and no process."""

import random
import time

import pytest

from pytest_pd.provision.base import Janitor
from pytest_pd.provision.identity import marked_with
from pytest_pd.provision.lease import held
from pytest_pd.provision.rundir import RunDir, make_run_id
from pytest_pd.provision.slurm import SlurmBackend
from tests.e2e.slurm_kit import busy, cluster, harness, running_slurm, session
from tests.kit import plan_of, python, wait_until

TTL_S = 5.0
SLACK_S = 40.0
QUIET_S = 2.0


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with running_slurm(tmp_path_factory.mktemp("slurm"), 4) as made:
        yield made


def left(site, run_id):
    """Return the jobs and processes of a run."""
    return site.jobs_of(run_id) + [str(pid) for pid in marked_with(f"{run_id}/")]


@pytest.mark.parametrize("moment", range(4))
def test_a_kill_at_any_moment_leaves_nothing(site, tmp_path, moment):
    run_id = make_run_id()
    run = RunDir(tmp_path / run_id / "toy")
    rng = random.Random(f"moment {moment}")
    with harness(cluster(TTL_S), run, run_id) as child:
        time.sleep(rng.uniform(0.3, 4.0))
        child.kill()
        child.wait()

    # an sbatch that was under way may bring its job after the first look
    seen_s = [time.monotonic()]

    def is_over():
        if left(site, run_id):
            seen_s.append(time.monotonic())
        return time.monotonic() - seen_s[-1] > QUIET_S

    wait_until(is_over, "the end", deadline_s=TTL_S + SLACK_S)


def test_a_kill_while_the_job_waits_leaves_no_job(site, tmp_path):
    run_id = make_run_id()
    run = RunDir(tmp_path / run_id / "toy")
    with busy(site, 4), harness(cluster(TTL_S), run, run_id) as child:
        wait_until(lambda: site.jobs_of(run_id), "the waiting job")
        child.kill()
        wait_until(
            lambda: not site.jobs_of(run_id), "no job", deadline_s=TTL_S + SLACK_S
        )


def test_another_run_lives_on(site, tmp_path):
    run_id = make_run_id()
    run = RunDir(tmp_path / run_id / "toy")
    with session(site, tmp_path, cluster(TTL_S)) as other:
        process = other.start()
        with harness(cluster(TTL_S), run, run_id) as child:
            wait_until(lambda: len(run.started_records()) == 2, "two services")
            child.kill()
        wait_until(
            lambda: not left(site, run_id), "the end", deadline_s=TTL_S + SLACK_S
        )

        assert process.exit_code() is None


def test_what_was_kept_is_ended_from_another_process(site, tmp_path):
    run_id = make_run_id()
    run = RunDir(tmp_path / run_id / "toy")
    run.create()
    place, plan = (
        cluster(600.0),
        plan_of([python("one", "import time; time.sleep(600)")]),
    )
    context = run.context(run_id, 600.0)
    with held(run.lease, 600.0) as lease:
        with SlurmBackend().allocate(place, plan, context) as allocation:
            allocation.start(plan.services[0])
            allocation.keep()
            lease.keep(600.0)
        assert site.jobs_of(run_id)
        backend = SlurmBackend()
        assert isinstance(backend, Janitor)

        backend.clean(place, context)

        assert site.jobs_of(run_id) == []
        wait_until(lambda: not list(marked_with(f"{run_id}/")), "the end")
    run.lease.write_text("bye")
