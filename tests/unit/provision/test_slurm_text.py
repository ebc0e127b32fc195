"""What Slurm is told and what it answers, without a Slurm."""

import os
import subprocess
import time

import pytest

from pytest_pd.provision.slurm_text import (
    JobRequest,
    batch_argv,
    batch_options,
    batch_script,
    client_env,
    container_options,
    gpu_options,
    holder_env,
    lease_script,
    parse_queue,
    parse_records,
    parse_steps,
    seconds_left,
    step_argv,
    step_env,
    step_name,
    watchman_script,
)
from pytest_pd.spec.site_slurm import ContainerSite, SlurmSite
from tests.kit import service, wait_until

REQUEST = JobRequest(
    "pd-r1-k2", "r1", 7, 4, "/runs/it's r1", "/runs/it's r1/lease", 120
)


def step(site, plan, node_gpus=4):
    return step_argv(
        *(site, "42", "n03", plan),
        name="pd-r1-k2-w",
        node_gpus=node_gpus,
        folder="/runs",
        command=("run",),
    )


def test_a_bare_site_asks_for_no_more_than_nodes_gpus_and_time():
    options = batch_options(SlurmSite(), REQUEST)

    assert "--nodes=7" in options
    assert "--gres=gpu:4" in options
    assert "--time=60" in options
    assert not [o for o in options if o.startswith(("--partition", "--account"))]


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"partition": "batch"}, "--partition=batch"),
        ({"account": "me"}, "--account=me"),
        ({"qos": "high"}, "--qos=high"),
        ({"reservation": "r"}, "--reservation=r"),
        ({"constraint": "a&b"}, "--constraint=a&b"),
        ({"cpus_per_node": 144}, "--cpus-per-task=144"),
        ({"whole_memory": True}, "--mem=0"),
        ({"segment": 2}, "--segment=2"),
        ({"segment": "all"}, "--segment=7"),
        ({"nodelist": ("a", "b")}, "--nodelist=a,b"),
        ({"exclude": ("bad",)}, "--exclude=bad"),
        ({"sbatch_flags": ("--licenses=x",)}, "--licenses=x"),
        ({"time_limit_min": 90}, "--time=90"),
    ],
)
def test_a_key_of_the_site_becomes_its_option(given, option):
    assert option in batch_options(SlurmSite(**given), REQUEST)
    assert option not in batch_options(SlurmSite(), REQUEST)


def test_exclusive_nodes_can_be_switched_off():
    assert "--exclusive" in batch_options(SlurmSite(), REQUEST)
    assert "--exclusive" not in batch_options(SlurmSite(exclusive=False), REQUEST)


@pytest.mark.parametrize(
    ("site", "options"),
    [
        ({"gpus_by": "gres"}, ["--gres=gpu:4"]),
        ({"gpus_by": "gres", "gres": "gpu:h100"}, ["--gres=gpu:h100:4"]),
        ({"gpus_by": "gpus-per-node"}, ["--gpus-per-node=4"]),
        ({"gpus_by": "gpus-per-node", "gres": "gpu:h100"}, ["--gpus-per-node=h100:4"]),
        ({"gpus_by": "none"}, []),
    ],
)
def test_gpus_are_asked_for_as_the_site_wants(site, options):
    assert gpu_options(SlurmSite(**site), 4) == options


def test_no_gpus_are_asked_for_where_there_are_none():
    assert gpu_options(SlurmSite(), 0) == []


def test_a_worker_step_sees_all_gpus_of_its_node():
    words = step(SlurmSite(), service("w", "x", gpu_ids=(2, 3)))

    assert "--gres=gpu:4" in words


def test_a_router_step_takes_no_gpu():
    assert "--gres=none" in step(SlurmSite(), service("router", "x"))


def test_a_step_overlaps_on_one_node_of_the_job():
    words = step(SlurmSite(), service("w", "x"))

    assert words[0] == "srun"
    assert {"--jobid=42", "--overlap", "--nodes=1", "--nodelist=n03"} <= set(words)
    assert words[-1] == "run"


def test_steps_of_two_topologies_in_one_job_have_different_names():
    marks = ("r1/k2/router", "r1/k2_tp8/router", "r2/k2/router", "r1/k2/prefill-0")
    names = {step_name(mark) for mark in marks}

    assert len(names) == len(marks)
    assert "--job-name=pd-r1-k2-w" in step(SlurmSite(), service("w", "x"))


def test_long_names_of_steps_are_short_and_differ_all_the_same():
    names = {step_name(f"r1/{'k' * 200}/prefill-{n}") for n in range(2)}

    assert len(names) == 2
    assert max(map(len, names)) < 100


def test_resources_of_a_service_are_planned_per_step():
    words = step(SlurmSite(), service("w", "x", cpus=36, memory_gib=200.0))

    assert "--cpus-per-task=36" in words
    assert "--mem=204800M" in words


def test_a_step_is_not_bound_unless_the_site_says_so():
    assert "--cpu-bind=none" in step(SlurmSite(), service("w", "x"))
    assert "--cpu-bind=cores" in step(SlurmSite(cpu_bind="cores"), service("w", "x"))
    quiet = step(SlurmSite(cpu_bind=None), service("w", "x"))
    assert not [word for word in quiet if word.startswith("--cpu-bind")]


def test_a_container_mounts_the_run_directory():
    site = ContainerSite(image="/img/a.sqsh", mounts=("/lustre:/lustre",))

    assert container_options(site, service("w", "x"), "/runs") == [
        "--container-image=/img/a.sqsh",
        "--container-mounts=/runs:/runs,/lustre:/lustre",
    ]


def test_the_topologys_image_wins():
    site = ContainerSite(image="/img/a.sqsh")

    words = container_options(site, service("w", "x", image="/img/b.sqsh"), "/runs")

    assert "--container-image=/img/b.sqsh" in words


def test_without_an_image_there_is_no_container():
    assert container_options(None, service("w", "x"), "/runs") == []


def test_the_users_settings_of_slurm_do_not_reach_our_commands():
    env = {
        "SBATCH_PARTITION": "x",
        "SQUEUE_FORMAT": "x",
        "SLURM_TIME_FORMAT": "x",
        "SLURM_CONF": "/c",
        "PATH": "/bin",
    }

    assert client_env(env) == {"SLURM_CONF": "/c", "PATH": "/bin"}


def test_proxies_do_not_reach_a_step():
    env = {"HTTP_PROXY": "p", "https_proxy": "p", "no_proxy": "x", "HOME": "/h"}

    assert step_env(env) == {"HOME": "/h"}


def test_no_secret_is_stored_with_the_job():
    env = {"HF_TOKEN": "hush", "PATH": "/bin", "SLURM_CONF": "/c", "SLURM_JOB_ID": "1"}

    assert holder_env(env) == {"PATH": "/bin", "SLURM_CONF": "/c"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5:00", 300),
        ("59", 59),
        ("1:02:03", 3723),
        ("2-00:00:01", 172801),
        ("1-02", 93600),
        ("UNLIMITED", None),
        ("NOT_SET", None),
        ("INVALID", None),
        ("", None),
    ],
)
def test_slurms_times_become_seconds(text, seconds):
    assert seconds_left(text) == seconds


def test_a_queue_is_read_by_job():
    views = parse_queue("7|RUNNING|None|n[01-02]|9:59|2026-01-01T00:00:00\nrubbish\n")

    assert views["7"].nodes == "n[01-02]"
    assert views["7"].left_s == 599
    assert not views["7"].over


def test_the_state_is_the_first_word():
    views = parse_queue("7|CANCELLED by 0|None||0:00|N/A\n8|CANCELLED+|None||0:00|N/A")

    assert views["7"].over
    assert views["8"].state == "CANCELLED"


@pytest.mark.parametrize(
    ("state", "reason", "story"),
    [
        ("TIMEOUT", "TimeLimit", "reached its time limit (TimeLimit)"),
        ("NODE_FAIL", "NodeDown", "lost a node (NodeDown)"),
        ("PREEMPTED", "None", "was preempted"),
        ("CANCELLED", "", "was cancelled"),
    ],
)
def test_an_end_is_told_in_words(state, reason, story):
    views = parse_queue(f"7|{state}|{reason}||0:00|N/A")

    assert views["7"].story == story


def test_a_state_nobody_knows_is_not_the_end():
    assert not parse_queue("7|HIBERNATING|None||0:00|N/A")["7"].over


def test_steps_are_found_by_name():
    assert parse_steps("7.0|prefill-0\n7.batch|batch\n") == {
        "prefill-0": "7.0",
        "batch": "7.batch",
    }


def test_records_keep_the_first_of_two_equal_keys():
    text = "NodeName=n01 State=IDLE Gres=gpu:4(S:0) OS=Linux 6 State=x\n\n"

    assert parse_records(text)[0]["State"] == "IDLE"
    assert parse_records(text)[0]["Gres"] == "gpu:4(S:0)"


def shell(script, **popen):
    return subprocess.Popen(["/bin/sh", "-c", script], **popen)


def short(lease, ttl_s=2):
    return JobRequest("pd-x", "x", 1, 0, str(lease.parent), str(lease), ttl_s)


def test_a_lease_given_back_ends_the_watch(tmp_path):
    lease = tmp_path / "it's a lease"
    lease.write_text("0001\n")
    with shell(lease_script(short(lease, 60))) as child:
        assert child.poll() is None
        lease.write_text("bye                 \n")

        assert child.wait(30) == 0


def test_a_lease_that_nobody_renews_ends_the_watch(tmp_path):
    lease = tmp_path / "lease"
    lease.write_text("0001\n")
    with shell(lease_script(short(lease))) as child:
        assert child.wait(60) == 0


def test_a_lease_that_is_renewed_keeps_the_watch(tmp_path):
    lease = tmp_path / "lease"
    with shell(lease_script(short(lease))) as child:
        for count in range(30):
            lease.write_text(f"{count:04}\n")
            time.sleep(0.2)
        assert child.poll() is None
        child.kill()


def test_an_unreadable_lease_is_unknown_until_the_time_to_live(tmp_path):
    lease = tmp_path / "lease"
    lease.write_text("0001\n")
    with shell(lease_script(short(lease, 30))) as child:
        lease.unlink()
        lease.mkdir()
        time.sleep(3)
        assert child.poll() is None
        child.kill()


def test_the_holder_ends_at_once_when_it_is_told(tmp_path):
    lease = tmp_path / "lease"
    lease.write_text("0001\n")
    with shell("echo up;" + batch_script(short(lease, 600)), stdout=-1) as child:
        assert child.stdout.readline() == b"up\n"
        time.sleep(0.5)
        child.terminate()

        assert child.wait(30) == 0


def test_the_watchman_cancels_by_the_name_of_the_job(tmp_path):
    lease, calls = tmp_path / "lease", tmp_path / "calls"
    lease.write_text("bye\n")
    fake = tmp_path / "bin" / "scancel"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    fake.chmod(0o755)
    env = {**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}"}

    with shell(watchman_script(short(lease), seconds=1), env=env) as child:
        wait_until(calls.exists, "a cancel")
        assert child.wait(30) == 0

    assert "--name=pd-x" in calls.read_text()


def test_paths_with_quotes_survive_the_shell(tmp_path):
    assert "'/runs/it'\"'\"'s r1/lease'" in batch_script(REQUEST)
    assert batch_argv(SlurmSite(), REQUEST)[:2] == ("sbatch", "--parsable")
