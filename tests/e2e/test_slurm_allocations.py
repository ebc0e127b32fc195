"""Allocations: our own, somebody else's, several topologies in one."""

import os
from hashlib import sha256
from pathlib import Path

import pytest

from pytest_pd.errors import InfrastructureLost, ProvisionError
from pytest_pd.provision.slurm import SlurmBackend
from pytest_pd.provision.slurm_image import imported
from pytest_pd.provision.slurm_inside import claimed_nodes
from pytest_pd.spec.site_slurm import ContainerSite
from tests.e2e.slurm_kit import cluster, running_slurm, session
from tests.kit import plan_of, python, wait_until


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with running_slurm(tmp_path_factory.mktemp("slurm"), 4) as made:
        yield made


@pytest.fixture
def inside(site, monkeypatch):
    """Stand in an allocation of two nodes, as in a shell of ``salloc``."""
    job = site.client(
        *("sbatch", "--parsable", "--nodes=2", "--gres=gpu:4", "--output=/dev/null"),
        *("--wrap", "sleep 600"),
    ).strip()
    wait_until(
        lambda: site.client("squeue", "-h", "-j", job, "-o", "%T").strip() == "RUNNING",
        "the allocation",
    )
    monkeypatch.setenv("SLURM_JOB_ID", job)
    yield job
    site.client("scancel", job)
    wait_until(lambda: not site.jobs(), "an empty queue")


def test_inside_an_allocation_no_job_is_made(site, inside, tmp_path):
    with session(site, tmp_path, cluster(), nodes=2) as here:
        assert here.allocation.job == inside
        assert here.start(node="node1").exit_code() is None
        assert site.jobs() == [inside]

    assert site.jobs() == [inside]


def test_topologies_run_in_turn_in_one_allocation(site, inside, tmp_path):
    for _ in range(2):
        with session(site, tmp_path, cluster(), nodes=2) as here:
            here.start()


def test_topologies_side_by_side_have_nodes_of_their_own(site, inside, tmp_path):
    with (
        session(site, tmp_path, cluster()) as one,
        session(site, tmp_path, cluster()) as two,
    ):
        nodes = {here.start().identity()["node"] for here in (one, two)}

    assert len(nodes) == 2


@pytest.mark.parametrize("first", [0, 1])
def test_the_end_of_a_topology_leaves_the_other_of_its_allocation_alone(
    site, inside, tmp_path, first
):
    with (
        session(site, tmp_path, cluster()) as one,
        session(site, tmp_path, cluster()) as two,
    ):
        services = [here.start("router") for here in (one, two)]
        services[first].stop(grace_s=10.0)

        assert services[first].exit_code() is not None
        assert services[1 - first].exit_code() is None


def test_an_allocation_that_is_too_small_is_refused(site, inside, tmp_path):
    with (
        pytest.raises(ProvisionError, match=r"needs 3 nodes.*has 2"),
        session(site, tmp_path, cluster(), nodes=3),
    ):
        pass


def test_an_allocation_that_is_over_is_told(site, tmp_path, monkeypatch):
    job = site.client(
        *("sbatch", "--parsable", "--output=/dev/null", "--wrap", "true")
    ).strip()
    wait_until(lambda: job not in site.jobs(), "its end")
    monkeypatch.setenv("SLURM_JOB_ID", job)

    with (
        pytest.raises(InfrastructureLost, match=f"job {job}"),
        session(site, tmp_path, cluster()),
    ):
        pass


def test_nodes_that_stay_taken_are_not_waited_for_for_ever(site):
    with (
        claimed_nodes("77", ["a", "b"], 2),
        pytest.raises(ProvisionError, match="came free"),
        claimed_nodes("77", ["a", "b"], 1, wait_s=0.3),
    ):
        pass


def test_gpus_of_the_plan_are_those_that_slurm_gave(site, tmp_path):
    code = "import os; print('up', os.environ['CUDA_VISIBLE_DEVICES'], flush=True)"
    worker = python("w", code, gpu_ids=(2, 3), env={"CUDA_VISIBLE_DEVICES": "2,3"})
    with session(site, tmp_path, cluster()) as here:
        process = here.allocation.start(worker)
        wait_until(lambda: process.exit_code() is not None, "the end")

        assert process.log.read_text().split() == ["up", "2,3"]


def test_a_router_sees_no_gpu(site, tmp_path):
    code = "import os; print('up', os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True)"
    with session(site, tmp_path, cluster()) as here:
        process = here.allocation.start(python("router", code))
        wait_until(lambda: process.exit_code() is not None, "the end")

        assert process.log.read_text().split()[1] in ("None", "")


def test_preflight_looks_at_every_node_and_leaves_nothing(site, tmp_path):
    plan = plan_of([python(f"s{n}", "", node=f"node{n}") for n in range(2)], nodes=2)

    found = SlurmBackend().preflight(cluster(), plan, tmp_path)

    seen = [f.what for f in found if f.ok and ":" not in f.what]
    assert len(seen) == 2
    assert site.jobs() == []
    assert list(tmp_path.iterdir()) == []


ENROOT = """\
#!/bin/sh
echo "$@" >>{said}
case "$4" in *bad*) echo "manifest unknown" >&2; exit 1 ;; esac
printf 'squash' >"$3"
"""


@pytest.fixture
def enroot(tmp_path, monkeypatch):
    """Put an ``enroot`` on PATH that makes a file of six bytes; yields its diary."""
    said = tmp_path / "enroot.log"
    program = tmp_path / "bin" / "enroot"
    program.parent.mkdir()
    program.write_text(ENROOT.format(said=said))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return said


def test_an_image_is_imported_once_and_its_digest_kept(site, tmp_path, enroot):
    store = tmp_path / "images"
    place = cluster(container=ContainerSite(import_to=str(store)))
    with session(site, tmp_path, place) as here:
        client, job = here.backend.client, here.allocation.job
        node = here.start().identity()["node"]
        found = [
            imported(client, place.slurm, job, node, "nvcr.io#vllm/vllm:0.32")
            for _ in range(2)
        ]

    assert found[0] == found[1]
    assert Path(found[0].path).read_bytes() == b"squash"
    assert found[0].sha256 == sha256(b"squash").hexdigest()
    assert enroot.read_text().count("docker://nvcr.io#vllm/vllm:0.32") == 1


def test_an_image_that_cannot_be_imported_is_told(site, tmp_path, enroot):
    place = cluster(container=ContainerSite(import_to=str(tmp_path / "images")))
    with (
        session(site, tmp_path, place) as here,
        pytest.raises(ProvisionError, match=r"'x/bad:1' cannot be imported on n\d\d"),
    ):
        here.allocation.start(python("one", "", image="x/bad:1"))

    assert not list((tmp_path / "images").glob("*.sqsh"))
