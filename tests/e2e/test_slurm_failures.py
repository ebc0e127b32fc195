"""What goes wrong on a cluster, each tried on a real Slurm: one clear message each."""

import os
import time

import pytest

from pytest_pd.errors import InfrastructureLost, ProvisionError, SpecError
from pytest_pd.probe.logs import read_text
from pytest_pd.provision.progress import waiting_shown
from pytest_pd.provision.slurm import SlurmBackend
from tests.e2e.slurm_kit import busy, cluster, running_slurm, session
from tests.kit import plan_of, python, wait_until


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    with running_slurm(folder, 4, slurmd_timeout_s=5) as made:
        yield made


@pytest.fixture
def root(site, tmp_path):
    yield tmp_path
    wait_until(lambda: not site.jobs(), "an empty queue")


def end_of(process):
    """Wait until the harness is told that the infrastructure went away."""
    caught = []

    def told():
        try:
            process.exit_code()
        except InfrastructureLost as error:
            caught.append(error)
        return caught

    wait_until(told, "the news", deadline_s=120)
    return str(caught[0])


def test_a_cancelled_job_is_no_failure_of_the_service(site, root):
    with session(site, root, cluster()) as here:
        process = here.start()
        site.client("scancel", here.allocation.job)

        assert f"Slurm job {here.allocation.job} was cancelled" in end_of(process)


def test_a_time_limit_is_told_as_one(site, root):
    with session(site, root, cluster()) as here:
        process = here.start()
        assert 0 < here.allocation.seconds_left() <= 600
        job = f"JobId={here.allocation.job}"
        site.client("scontrol", "update", job, "TimeLimit=00:00:01")

        assert "reached its time limit" in end_of(process)


def test_a_lost_node_is_named(site, root):
    with session(site, root, cluster(), nodes=2) as here:
        process = here.start(node="node1")
        node = process.identity()["node"]
        site.kill(node)
        try:
            said = end_of(process)
        finally:
            site.start_node(node)
    wait_until(site._all_idle, "the node again")

    assert node in said
    assert "lost a node" in said or "lost node" in said


def test_a_restart_of_the_controller_ends_nothing(site, root):
    with session(site, root, cluster(ttl_s=30)) as here:
        process = here.start()
        saved, begun_s = site.root / "state/job_state", time.time()
        site.client("scontrol", "reconfigure")
        wait_until(
            lambda: saved.is_file() and saved.stat().st_mtime > begun_s, "saved state"
        )
        site.kill("slurmctld")
        view = here.backend.watch.view(here.allocation.job, now=True)
        assert view.state == "RUNNING"
        assert process.exit_code() is None

        site.start_controller()
        wait_until(lambda: site.client("squeue", "-h", check=False), "the controller")
        assert process.exit_code() is None
        process.stop(grace_s=5.0)
        assert process.exit_code() is not None


def test_a_full_partition_is_told_with_the_place_in_the_queue(site, root):
    place, shown = cluster(queue_budget_s=4.0), []
    with (
        busy(site, 4),
        waiting_shown(shown.append),
        pytest.raises(ProvisionError, match="did not start within 4 s") as caught,
        session(site, root, place),
    ):
        pass

    assert "1 of 1 in 'batch'" in str(caught.value)
    assert any("pending for" in line for line in shown)


def test_a_wrong_partition_names_the_nearest(site):
    with pytest.raises(SpecError, match="did you mean 'batch'"):
        SlurmBackend().check(cluster(partition="bach"), [plan_of([])])


def test_a_request_that_would_pend_for_ever_is_refused(site):
    many = plan_of([python("any", "")], nodes=3)

    with pytest.raises(ProvisionError, match=r"needs 3 nodes.*allows at most 2"):
        SlurmBackend().check(cluster(partition="small"), [many])


def test_a_feature_that_nobody_has_is_refused_with_the_count(site):
    with pytest.raises(ProvisionError, match="0 of them with feature 'h100'"):
        SlurmBackend().check(cluster(constraint="h100"), [plan_of([])])


def test_what_sbatch_refuses_is_said_in_its_words(site, root):
    place = cluster(sbatch_flags=("--no-such-option",))

    with (
        pytest.raises(ProvisionError, match="unrecognized option"),
        session(site, root, place),
    ):
        pass


def test_what_srun_refuses_is_in_the_log_of_the_service(site, root):
    with session(site, root, cluster(srun_flags=("--no-such-option",))) as here:
        process = here.allocation.start(python("one", ""))
        wait_until(lambda: process.exit_code() is not None, "the refusal")

        assert process.exit_code() != 0
        assert "unrecognized option" in read_text(process.log)


def test_a_run_directory_that_nodes_do_not_share_is_refused(site, root):
    with (
        pytest.raises(ProvisionError, match="shared_dir"),
        session(site, root, cluster(shared_dir="/nowhere")),
    ):
        pass


def test_the_death_of_a_service_is_its_own(site, root):
    with session(site, root, cluster()) as here:
        process = here.start(code="print('up', flush=True); raise SystemExit(7)")
        wait_until(lambda: process.exit_code() is not None, "the end")

        assert process.exit_code() == 7


SMI = """\
#!/bin/sh
case "$*" in
  *query-gpu*)
    for i in 0 1 2 3; do
      case " {bad} " in *" $SLURMD_NODENAME "*) errors=3 ;; *) errors=0 ;; esac
      echo "$i, GPU-$i, NVIDIA GB200, 580.1, 4, 189000, 0x0, $errors"
    done ;;
esac
"""


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """Let nodes have GPUs, of which those of some nodes have errors."""

    def put(bad):
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir(exist_ok=True)
        program.write_text(SMI.format(bad=bad))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    return put


def test_a_bad_node_is_left_out_of_a_second_job(site, root, smi, caplog):
    smi("n01")
    with session(site, root, cluster(), nodes=2, gpus=4) as here:
        nodes = {here.start(f"on{n}", f"node{n}").identity()["node"] for n in (0, 1)}

    assert "n01" not in nodes
    assert "Bad node n01 (ECC: uncorrected errors on GPU 0, 1, 2, 3)" in caplog.text


def test_a_second_bad_node_ends_it_with_both_named(site, root, smi):
    smi("n01 n02 n03 n04")

    with (
        pytest.raises(ProvisionError, match=r"Bad node n01 .*, n0[234] ") as caught,
        session(site, root, cluster(), gpus=4),
    ):
        pass

    assert "slurm.exclude: [n01, n0" in caught.value.hint
