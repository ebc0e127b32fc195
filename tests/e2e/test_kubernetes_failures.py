"""What goes wrong in a cluster, each tried on a real API server: one clear message."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pd.errors import ProvisionError
from pytest_pd.probe.logs import read_text
from pytest_pd.provision.identity import Identity
from pytest_pd.provision.kubernetes import sweep
from pytest_pd.provision.kubernetes.backend import KubernetesBackend
from pytest_pd.provision.kubernetes.client import KubeClient
from pytest_pd.provision.kubernetes.names import dns_label
from pytest_pd.provision.lease import held
from pytest_pd.provision.rundir import RunDir, make_run_id, read_record
from tests.kit import free_ports, plan_of, python, service, wait_until
from tests.services_kube import (
    NAMESPACE,
    cluster_for,
    kube,
    kubectl,
    objects_of,
    site_for,
)

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def plane():
    with kube(gpus=4) as made:
        yield made


@contextmanager
def allocated(cluster, root, run_id=None, services=()):
    run_id = run_id or make_run_id()
    run = RunDir(root / run_id / "toy")
    run.create()
    plan = plan_of(services or [python("one", SLEEPER)])
    backend = KubernetesBackend()
    backend.check(cluster, [plan])
    with (
        held(run.lease, cluster.lease_ttl_s),
        backend.allocate(
            cluster, plan, run.context(run_id, cluster.lease_ttl_s)
        ) as allocation,
    ):
        yield allocation


def shared(plane, **fields):
    return cluster_for(plane, namespace=NAMESPACE, **fields)


def says(process, word="up"):
    wait_until(lambda: word in read_text(process.log), f"{word!r} in the log")


def hears(address):
    try:
        with socket.create_connection(address, timeout=5) as connection:
            return connection.recv(5) == b"hello"
    except OSError:
        return False


def hopeless(process):
    """Return what a pod that will never run is refused with."""
    found = []

    def refused():
        try:
            process.exit_code()
        except ProvisionError as error:
            found.append(error)
        return found

    wait_until(refused, "the refusal")
    return str(found[0])


def test_a_namespace_of_its_own_comes_and_goes(plane, tmp_path):
    run_id = make_run_id()
    with allocated(cluster_for(plane), tmp_path, run_id) as allocation:
        says(allocation.start(python("one", SLEEPER)))
        found = objects_of(plane, run_id)
        assert f"Namespace/pytest-pd-{run_id}-toy" in found
        assert "Pod/one" in found

    assert objects_of(plane, run_id) == []


def hold_back(plane, *where):
    kubectl(plane, "create", "configmap", "kept", *where)
    held = '{"metadata":{"finalizers":["example.com/kept"]}}'
    kubectl(plane, "patch", "configmap", "kept", *where, "-p", held)


def test_what_a_finalizer_holds_back_is_named(plane, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "GONE_S", 12.0)
    run_id = make_run_id()
    where = ("-n", f"pytest-pd-{run_id}-toy")
    with (
        pytest.raises(ProvisionError, match="are still in namespace") as caught,
        allocated(cluster_for(plane), tmp_path, run_id),
    ):
        hold_back(plane, *where)
    free = '{"metadata":{"finalizers":null}}'
    kubectl(plane, "patch", "configmap", "kept", *where, "-p", free)

    assert "example.com/kept in 1 resource instances" in str(caught.value)
    wait_until(lambda: objects_of(plane, run_id) == [], "the end of the namespace")


def test_a_context_that_is_not_there_is_named(plane, tmp_path):
    with (
        pytest.raises(ProvisionError, match="nowhere") as caught,
        allocated(shared(plane, context="nowhere"), tmp_path),
    ):
        pass
    assert "get-contexts" in str(caught.value)


def test_a_user_who_may_nothing_is_told_what(plane, tmp_path):
    poor = plane.folder / "poor"
    words = ("get", "secret", "-n", NAMESPACE, "-o", "json")
    secrets = json.loads(kubectl(plane, *words).stdout)
    token = next(
        base64.b64decode(each["data"]["token"]).decode()
        for each in secrets["items"]
        if each["type"] == "kubernetes.io/service-account-token"
    )
    plane.write_kubeconfig(poor, token)
    with (
        pytest.raises(ProvisionError, match="may not create pods") as caught,
        allocated(shared(plane, kubeconfig=str(poor)), tmp_path),
    ):
        pass
    assert NAMESPACE in str(caught.value)


def test_a_missing_secret_is_named_before_anything_is_applied(
    plane, tmp_path, monkeypatch
):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    wanted = python("one", SLEEPER, env_from_host=("HF_TOKEN",))
    run_id = make_run_id()

    with (
        pytest.raises(ProvisionError, match="HF_TOKEN"),
        allocated(shared(plane), tmp_path, run_id, [wanted]),
    ):
        pass
    assert objects_of(plane, run_id) == []


def command_lines():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield path.read_bytes()


def test_a_secret_reaches_its_pod_and_nothing_else(plane, tmp_path, monkeypatch):
    value = f"hf_{make_run_id()}{make_run_id()}"
    monkeypatch.setenv("HF_TOKEN", value)
    code = f"import os; print('same', os.environ['HF_TOKEN'][::-1] == {value[::-1]!r})"
    run_id = make_run_id()
    cluster = shared(plane)
    with allocated(cluster, tmp_path, run_id) as allocation:
        wanted = python("one", f"{code}; {SLEEPER}", env_from_host=("HF_TOKEN",))
        says(allocation.start(wanted), "same True")
        kinds = "pods,configmaps,leases,events,serviceaccounts"
        stored = kubectl(plane, "get", kinds, "-A", "-o", "json").stdout
        words = list(command_lines())

    assert run_id in stored
    assert value not in stored
    assert not any(value.encode() in each for each in words)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if value.encode() in path.read_bytes()]


def test_an_image_that_cannot_be_pulled_ends_the_wait(plane, tmp_path):
    with allocated(shared(plane), tmp_path) as allocation:
        process = allocation.start(python("one", SLEEPER, image="no/such:image"))
        said = hopeless(process)

    assert "its image cannot be pulled" in said
    assert "no/such:image" in said


def test_a_pod_that_no_node_takes_tells_what_is_lacking(plane, tmp_path):
    greedy = replace(python("one", SLEEPER), gpu_ids=tuple(range(8)))
    with allocated(shared(plane, schedule_s=1.0), tmp_path) as allocation:
        process = allocation.start(greedy)
        said = hopeless(process)
        assert "Insufficient nvidia.com/gpu" in read_text(process.log)

    assert "Insufficient nvidia.com/gpu" in said
    assert "free GPUs" in said


def test_a_quota_is_told_in_the_clusters_words(plane, tmp_path):
    kubectl(plane, "create", "namespace", "small")
    # the guard is the other one
    kubectl(plane, "create", "quota", "few", "--hard=pods=2", "-n", "small")

    def accounted():
        done = kubectl(plane, "get", "quota", "few", "-n", "small", "-o", "json")
        return json.loads(done.stdout).get("status", {}).get("hard")

    wait_until(accounted, "the quota")
    cluster = cluster_for(plane, namespace="small")
    with allocated(cluster, tmp_path) as allocation:
        allocation.start(python("one", SLEEPER))
        with pytest.raises(ProvisionError, match="exceeded quota") as caught:
            allocation.start(python("two", SLEEPER))
    assert "larger quota" in str(caught.value)


def test_a_pod_that_somebody_deletes_counts_as_killed(plane, tmp_path):
    run_id = make_run_id()
    with allocated(shared(plane), tmp_path, run_id) as allocation:
        process = allocation.start(python("one", SLEEPER))
        says(process)
        kubectl(plane, "delete", "pod", process.pod, "-n", NAMESPACE, "--wait=false")
        wait_until(lambda: process.exit_code() is not None, "its end")

        assert process.exit_code() < 0
        assert "pytest-pd: pod" in read_text(process.log)


def test_a_service_that_ends_at_start_leaves_its_last_lines(plane, tmp_path):
    with allocated(shared(plane), tmp_path) as allocation:
        process = allocation.start(python("one", "raise SystemExit('no weights')"))
        wait_until(lambda: process.exit_code() is not None, "its end")

        assert process.exit_code() == 1
        assert "no weights" in read_text(process.log)


def test_an_api_server_that_restarts_takes_nothing_with_it(plane, tmp_path):
    count = (
        "import time\n"
        "for n in range(100000): print('line', n, flush=True); time.sleep(0.05)"
    )
    with allocated(shared(plane), tmp_path) as allocation:
        process = allocation.start(python("one", count))
        says(process, "line 5\n")
        plane.stop_one("kube-apiserver")
        plane.start_api()
        # those of 1.20 give new accounts no tokens after they lost their server
        plane.stop_one("kube-controller-manager")
        plane.start_controllers()
        seen = len(read_text(process.log).splitlines())

        wait_until(
            lambda: len(read_text(process.log).splitlines()) > seen + 20, "more lines"
        )
        assert process.exit_code() is None
        lines = [x for x in read_text(process.log).splitlines() if x.startswith("line")]
        assert lines == [f"line {n}" for n in range(len(lines))]
        process.stop(grace_s=1.0)


GREETER = (
    "import socket, sys\n"
    "s = socket.create_server((sys.argv[1], int(sys.argv[2])))\n"
    "while True: s.accept()[0].sendall(b'hello')"
)


def start_greeter(allocation):
    """Return a service that says hello, and where it is heard from here."""
    (port,) = free_ports(1)
    plan = plan_of([python("one", SLEEPER)])
    address = allocation.addresses(plan)["node0"]
    one = python("one", GREETER, address, str(port), ports={"http": port})
    process = allocation.start(one)
    reached_at = (allocation.reach(plan)["node0"], port)
    wait_until(lambda: hears(reached_at), "an answer")
    return process, reached_at


def test_a_forward_that_breaks_is_begun_again(plane, tmp_path):
    with allocated(shared(plane), tmp_path) as allocation:
        process, reached_at = start_greeter(allocation)
        first = process.forward._popen
        os.killpg(first.pid, signal.SIGKILL)  # kubectl and what ties it to us
        first.wait()

        wait_until(lambda: hears(reached_at), "an answer again")
        assert process.forward._popen is not first


def test_ports_of_what_is_kept_stay_forwarded_until_its_lease_is_over(plane, tmp_path):
    cluster, run_id = shared(plane), make_run_id()
    run = RunDir(tmp_path / run_id / "toy")
    run.create()
    context = run.context(run_id, cluster.lease_ttl_s)
    plan = plan_of([python("one", SLEEPER)])
    with held(run.lease, cluster.lease_ttl_s):
        with KubernetesBackend().allocate(cluster, plan, context) as allocation:
            _, reached_at = start_greeter(allocation)
            allocation.keep()

        wait_until(lambda: hears(reached_at), "an answer when the harness is gone")
    wait_until(lambda: not hears(reached_at), "the end")
    wait_until(lambda: not objects_of(plane, run_id), "the end of its objects")


@pytest.mark.parametrize("name", ["etcd", "peer", "kubelet"])
def test_another_user_of_the_host_is_not_heard(plane, name):
    """One without a certificate of the plane, though it knows whom it talks to."""
    context = ssl.create_default_context(cafile=str(plane.folder / "certs" / "ca.crt"))
    address = ("127.0.0.1", plane.ports[name])

    with (
        socket.create_connection(address, 10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as stranger,
        suppress(ssl.SSLError, ConnectionError),
    ):
        stranger.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert stranger.recv(1) == b""


def test_commands_of_another_user_of_the_namespace_are_left_alone(plane, tmp_path):
    other = dns_label(f"other-{make_run_id()}")
    kubectl(plane, "create", "configmap", other, "-n", NAMESPACE)
    with allocated(shared(plane), tmp_path) as allocation:
        says(allocation.start(python("one", SLEEPER)))

    kubectl(plane, "get", "configmap", other, "-n", NAMESPACE)


def test_a_gateway_is_rendered_and_not_run(plane):
    plan = replace(plan_of([service("one", "x")]), kubernetes={"front": "gateway"})

    with pytest.raises(ProvisionError, match="only renders"):
        KubernetesBackend().check(shared(plane), [plan])


@pytest.mark.parametrize("relay_dies", [False, True])
def test_a_killed_harness_leaves_no_object(plane, tmp_path, relay_dies):
    cluster, run_id = cluster_for(plane), make_run_id()
    words = [
        *(sys.executable, "-m", "tests.contract.harness_child"),
        cluster.model_dump_json(exclude_unset=True),
        *(str(tmp_path / "killed" / "toy"), run_id),
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=env) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"started\n"
        wait_until(lambda: running(plane, run_id) == 3, "two services and the guard")
        relays = relays_of(child.pid) if relay_dies else []
        child.kill()
        for pid in relays:
            os.kill(pid, 9)

    deadline_s = cluster.lease_ttl_s + 60
    wait_until(lambda: not objects_of(plane, run_id), "the end", deadline_s=deadline_s)


def running(plane, run_id):
    words = ("get", "pods", "-A", "-l", f"pytest-pd/run={run_id}", "-o", "json")
    pods = json.loads(kubectl(plane, *words).stdout)["items"]
    return sum(pod["status"].get("phase") == "Running" for pod in pods)


def relays_of(parent):
    """Return the pids of the helper that renews the lease, found by its parent."""
    done = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(parent)],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.split(None, 1) for line in done.stdout.splitlines()]
    found = [int(pid) for pid, args in lines if "kubernetes.relay" in args]
    assert found
    return found


def test_down_finds_a_run_by_its_labels(plane, tmp_path):
    cluster, run_id = shared(plane), make_run_id()
    run = RunDir(tmp_path / run_id / "toy")
    run.create()
    context = run.context(run_id, 600.0)
    backend = KubernetesBackend()
    plan = plan_of([python("one", SLEEPER)])
    with held(run.lease, 600.0):
        with backend.allocate(cluster, plan, context) as allocation:
            says(allocation.start(plan.services[0]))
            allocation.keep()
        assert objects_of(plane, run_id)
        backend.clean(cluster, context)

        assert objects_of(plane, run_id) == []


def test_a_record_says_which_pod_a_service_is(plane, tmp_path):
    with allocated(shared(plane), tmp_path) as allocation:
        process = allocation.start(python("one", SLEEPER))
        says(process)
        record = read_record(next(tmp_path.rglob("one.started.json")))
        identity = process.identity()

        assert record["uid"] == identity["uid"]
        assert identity["image"].startswith("pytest-pd.local/host@sha256:")
        assert not Identity.read(record).is_alive


def test_the_client_tells_a_refusal_from_silence(plane):
    client = KubeClient(site_for(plane))
    try:
        client.open()
        with pytest.raises(ProvisionError, match="not found"):
            client.request("GET", "/api/v1/namespaces/nowhere")
    finally:
        client.close()
