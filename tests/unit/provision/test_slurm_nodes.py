"""What the nodes of a job say when they are asked, and what silence means."""

import json
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from pytest_pd.errors import InfrastructureLost, ProvisionError
from pytest_pd.provision import launcher
from pytest_pd.provision.rundir import RunDir
from pytest_pd.provision.slurm_client import SlurmClient
from pytest_pd.provision.slurm_nodes import SlurmAllocation, slurm_folder
from pytest_pd.spec.cluster import ClusterSpec
from tests.kit import wait_until


class Srun:
    """Nodes that answer with the nonce that they see."""

    def __init__(self, sees):
        self.sees, self.within_s = sees, 0.0

    def run(self, *words, within_s, **_):
        self.within_s = within_s
        lines = [
            f"PDFACTS {node} {json.dumps({'nonce': nonce})}\n"
            for node, nonce in self.sees.items()
        ]
        return subprocess.CompletedProcess(words, 1, "".join(lines), "srun: error: no")


def allocation_of(client, root, **site):
    cluster = ClusterSpec(name="c", backend="slurm", hardware="gb200", slurm=site)
    context = RunDir(root).context("r1", 5.0)
    slurm_folder(context).mkdir(parents=True)
    nodes = {"node0": "n01", "node1": "n02"}
    handle = SimpleNamespace(job="7", client=client)
    return SlurmAllocation(cluster, context, handle, nodes, [])


def asked(client, root, **site):
    return allocation_of(client, root, **site).facts()


def test_nodes_that_see_the_run_directory_are_asked_once_for_all(tmp_path):
    assert set(asked(Srun({"n01": "r1", "n02": "r1"}), tmp_path)) == {"n01", "n02"}


def test_a_node_that_says_nothing_is_lost_and_named(tmp_path):
    with pytest.raises(InfrastructureLost, match=r"^n02 of Slurm job 7 gave no answer"):
        asked(Srun({"n01": "r1"}), tmp_path)


def test_a_node_with_another_run_directory_is_blind(tmp_path):
    with pytest.raises(ProvisionError, match=r"^n02 cannot see") as caught:
        asked(Srun({"n01": "r1", "n02": ""}), tmp_path)

    assert not isinstance(caught.value, InfrastructureLost)


def test_the_first_step_may_take_as_long_as_the_site_says(tmp_path):
    srun = Srun({"n01": "r1", "n02": "r1"})

    asked(srun, tmp_path, node_answer_s=400)

    assert srun.within_s == 400


class Slow(SlurmClient):
    """Its srun says one word and hangs."""

    def run(self, *_, **given):
        code = 'import time; print(\'PDFACTS n01 {"nonce": "r1"}\', flush=True);'
        return super().run(sys.executable, "-c", f"{code} time.sleep(60)", **given)


def test_a_step_that_hangs_is_told_with_what_was_said_so_far(tmp_path):
    with pytest.raises(InfrastructureLost, match=r"^n02 .* within 2 s"):
        asked(Slow(), tmp_path, node_answer_s=2)


class Signals:
    """A job whose srun ends with the code that is given; keeps its words."""

    def __init__(self, code):
        self.code, self.words = code, ()

    def run(self, *words):
        self.words = words
        return subprocess.CompletedProcess(words, self.code, "", "srun: error: no")


def send(client, root, **site):
    allocation_of(client, root, **site)._send("n01", 4711, 99, 19)
    return client.words


def test_a_signal_that_did_not_arrive_is_told(tmp_path):
    with pytest.raises(ProvisionError, match=r"Signal 19 did not reach n01 .*: no\n"):
        send(Signals(1), tmp_path)


@pytest.mark.parametrize(("by", "named"), [("gres", True), ("none", False)])
def test_a_signal_names_gres_only_where_gpus_are_asked_for(tmp_path, by, named):
    assert ("--gres=none" in send(Signals(0), tmp_path, gpus_by=by)) is named


class Here(SlurmClient):
    """A job whose node is this machine."""

    def run(self, *words):
        return super().run(*words[words.index(sys.executable) :])


@pytest.mark.parametrize(("late_ticks", "hit"), [(0, True), (1, False)])
def test_a_signal_goes_to_the_launcher_of_the_record_alone(tmp_path, late_ticks, hit):
    allocation = allocation_of(Here(), tmp_path)
    shutil.copy(launcher.__file__, allocation.folder)
    with subprocess.Popen(["sh", "-c", "sleep 30; :"]) as parent:
        wait_until(lambda: launcher.descendants(parent.pid), "its child")
        (child,) = launcher.descendants(parent.pid)
        start_time = launcher.start_time(parent.pid) + late_ticks
        try:
            allocation._send("n01", parent.pid, start_time, signal.SIGKILL)
            assert (launcher.start_time(child) is None) is hit
        finally:
            launcher.send([child], signal.SIGKILL)
