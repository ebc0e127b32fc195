"""What is looked at and sent from inside of a cluster: load, troubles, Services."""

from __future__ import annotations

import json
import socket
import sys
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import pytest

from pytest_pd.installer.paths import find_program
from pytest_pd.load.bench import Bench
from pytest_pd.load.point import LoadPoint
from pytest_pd.load.prompts import Prompt
from pytest_pd.load.target import Target
from pytest_pd.plan.model import Role
from pytest_pd.provision.compose import plan_deployment
from pytest_pd.provision.deploy import deploy
from pytest_pd.provision.kubernetes.backend import KubernetesBackend
from pytest_pd.provision.kubernetes.client import KubeClient
from pytest_pd.provision.kubernetes.write import rendered
from pytest_pd.provision.rehearse import rehearse
from pytest_pd.provision.rundir import RunDir, make_run_id
from pytest_pd.spec.file import read_cluster, read_topology
from pytest_pd.spec.locate import find
from tests.kit import free_ports, wait_until
from tests.kube_crds import definitions
from tests.services import require
from tests.services_kube import NAMESPACE, cluster_for, kube, kubectl, site_for

ROOT = Path(__file__).parents[2]
FILE = ROOT / "fixtures/topologies/llama31_8b_8p8d.yaml"
H100 = ROOT / "fixtures/clusters/h100_kubernetes.yaml"
POOLS = ("prefill", "decode")


@pytest.fixture(scope="module")
def plane():
    with kube() as made:
        yield made


def here(cluster):
    """Return the cluster as one whose pods have this machine's programs."""
    site = cluster.kubernetes.model_copy(update={"local": True})
    return cluster.model_copy(update={"kubernetes": site})


@contextmanager
def small(plane, folder, name="llama31_8b_8p8d", *, real=None):
    """Yield the topology with one worker per role, played in a shared namespace."""
    (found,) = find("topologies", [name])
    spec = read_topology(found.path, found.name)
    pools = {r: getattr(spec, r).model_copy(update={"replicas": 1}) for r in POOLS}
    wanted = spec.model_copy(update=pools)
    cluster = cluster_for(plane, namespace=NAMESPACE, python=sys.executable)
    topology, _ = rehearse(wanted, here(cluster), installed=real)
    _, place = rehearse(wanted, cluster)
    run_id = make_run_id()
    context = RunDir(folder / run_id / "toy").context(run_id, place.lease_ttl_s)
    make_plan = partial(plan_deployment, topology, place)
    with deploy(make_plan, KubernetesBackend(), place, context) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def deployment(plane, tmp_path_factory):
    with small(plane, tmp_path_factory.mktemp("small")) as made:
        yield made


def pod_of(deployment, service):
    return deployment.processes[service].pod


def test_load_is_sent_by_a_pod_to_names_of_the_cluster(deployment):
    allocation = deployment.allocation
    (router,) = deployment.endpoints(Role.ROUTER)
    bench = Bench(allocation.load_command("node0"), allocation.load_env())
    target = Target(url=router.known_as, model=deployment.plan.served_model)
    texts = [f", w{n:03d} w001 ? w001" for n in range(6)]
    prompts = [Prompt(text=text, output_tokens=4) for text in texts]
    try:
        result = bench.run(target, LoadPoint(concurrency=2), prompts)
    finally:
        bench.close()

    assert router.known_as != router.url
    assert result.counts() == {"ok": 6}


def test_nothing_is_found_where_nothing_is_wrong(deployment):
    assert deployment.allocation.diagnose(deployment.plan) == ()


def test_missing_rdma_devices_are_named(deployment):
    services = [replace(s, rdma_devices=1) for s in deployment.plan.services]
    plan = replace(deployment.plan, rehearsal=False, services=tuple(services))

    (said,) = deployment.allocation.diagnose(plan)
    assert said.startswith("RDMA: the pod of prefill-0 asked for 1 of rdma/ib")


def test_nixl_that_complains_is_quoted(deployment):
    log = deployment.processes["decode-0"].log
    line = "ERROR nixl_agent: NIXL_ERR_BACKEND while connecting"
    with log.open("a") as file:
        file.write(line + "\n")

    (said,) = deployment.allocation.diagnose(deployment.plan)
    assert said == f"NIXL: decode-0 says: {line}"
    log.write_text(log.read_text().replace(line, ""))


def test_a_selector_that_matches_nothing_is_named(plane, deployment):
    pod = pod_of(deployment, "prefill-0")
    words = ("label", "pod", pod, "-n", NAMESPACE)
    kubectl(plane, *words, "llm-d.ai/role-")
    (said,) = deployment.allocation.diagnose(deployment.plan)
    kubectl(plane, *words, "llm-d.ai/role=prefill")

    assert said.startswith("selector: ")
    assert "llm-d.ai/role=prefill" in said


def test_a_backend_that_the_router_cannot_reach_is_named(deployment):
    plan = deployment.plan
    (wrong,) = deployment.endpoints(Role.PREFILL)
    lost = replace(wrong, inside="http://nowhere.invalid:8000")
    ends = tuple(lost if each == wrong else each for each in plan.endpoints)

    (said,) = deployment.allocation.diagnose(replace(plan, endpoints=ends))
    assert said.startswith(
        "backend: 1 of 2 workers cannot be reached from the pod of router: prefill-0 "
        "(nowhere.invalid:8000): "
    )


def test_side_channels_that_decode_cannot_reach_are_named(deployment):
    plan = deployment.plan
    (closed,) = free_ports(1)
    services = [replace(s, ports={"side_channel": closed}) for s in plan.services]

    (said,) = deployment.allocation.diagnose(replace(plan, services=tuple(services)))
    assert said.startswith("NIXL: not connected. 1 of 1 prefill side channels")


@pytest.fixture(scope="module")
def custom(plane):
    """Make the server know the custom resources that we render."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": definitions()})
    kubectl(plane, "apply", "-f", "-", text=text)
    kubectl(plane, "wait", "--for=condition=Established", "crd", "--all")


@pytest.mark.parametrize("variant", ["llmd", "lws"])
def test_what_is_only_rendered_is_accepted_as_it_is(plane, custom, variant):
    spec = read_topology(FILE, f"llama31_8b_8p8d_{variant}")
    make = partial(plan_deployment, spec, read_cluster(H100))
    found = [m for m in rendered(make, read_cluster(H100)) if m["kind"] != "Pod"]
    client = KubeClient(site_for(plane))
    try:
        client.open()
        for each in found:
            wanted = known_here(each)
            assert lacks(client.apply(wanted), wanted) == []
    finally:
        kubectl(plane, "delete", "namespace", found[0]["metadata"]["name"])
        client.close()


def known_here(manifest):
    """Return a manifest without what this old server does not know: gRPC probes."""
    text = json.dumps(manifest)
    probe = '"readinessProbe": {"grpc": {"port": 9003, "service": '
    return json.loads(text.replace(probe + '"inference-extension"}}, ', ""))


def lacks(stored, wanted, at=""):
    """Return the places where the server did not keep what it was given."""
    if isinstance(wanted, dict) and isinstance(stored, dict):
        return [
            place
            for key, value in wanted.items()
            if value or key != "stringData"  # is written and not read
            for place in lacks(stored.get(key), value, f"{at}.{key}")
        ]
    if isinstance(wanted, list) and isinstance(stored, list):
        short = [at] if len(stored) < len(wanted) else []
        rest = zip(stored, wanted, strict=False)
        return short + [p for a, b in rest for p in lacks(a, b, f"{at}[]")]
    return [] if stored == wanted else [f"{at}: {stored!r} for {wanted!r}"]


@pytest.mark.parametrize("variant", ["discovery", "clusterip"])
def test_the_real_router_finds_its_workers(plane, tmp_path, variant):
    if find_program("vllm-router") is None:
        require("vllm-router", "pytest-pd engines install vllm-router")
    name = f"llama31_8b_8p8d_{variant}"
    with small(plane, tmp_path, name, real=lambda program: True) as deployment:
        before = deployment.evidence()
        asked = {"model": deployment.plan.served_model, "prompt": ", w001 w002 ? w001"}
        answer = httpx.post(f"{deployment.url}/v1/completions", json=asked, timeout=30)
        assert answer.status_code == 200, answer.text
        handed = deployment.evidence().since(before)

        assert deployment.plan.router == "vllm_router"
        # kubectl brings the lines of a pod some time after they were written.
        pair = "Transparent proxy: prefill="
        wait_until(lambda: pair in handed.new_log("router"), "the pair of the router")


def test_a_service_has_an_address_that_reaches_its_pods(plane, deployment):
    words = ("get", "services", "-n", NAMESPACE, "-o", "json")
    services = json.loads(kubectl(plane, *words).stdout)["items"]
    (found,) = [s for s in services if "decode" in s["metadata"]["name"]]
    place = (found["spec"]["clusterIP"], found["spec"]["ports"][0]["port"])

    def answers():
        try:
            with socket.create_connection(place, timeout=5) as connection:
                connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
                return connection.recv(64).startswith(b"HTTP/1.")
        except OSError:
            return False

    wait_until(answers, "an answer of the Service")
