"""Dynamo with mocker workers: discovery, three witnesses, and how it dies."""

from pathlib import Path

import httpx
import psutil
import pytest

from pytest_pd.errors import ProcessDied
from pytest_pd.plan.model import Role
from pytest_pd.probe.named import named_in, named_in_log
from pytest_pd.provision.compose import engine_of, router_of
from tests.kit import wait_until
from tests.real_engine import brought_up, complete, needs, spec_of, until_dead

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def up(tmp_path: Path):
    """Return a function that brings a topology up by name, changed or not."""

    def make(name: str, **changes):
        topology = spec_of(name).model_copy(update=changes)
        needs("dynamo", topology)
        return brought_up(topology, tmp_path / "run")

    return make


@pytest.mark.parametrize("name", ["dynamo_mock_1p1d", "dynamo_mock_etcd_1p1d"])
def test_three_witnesses_agree_on_prefill_then_decode(up, name):
    topology = spec_of(name)
    witness = router_of(topology).witness(topology)
    requests = engine_of(topology).evidence(topology).requests
    with up(name) as deployment:
        before = deployment.evidence()
        answers = [
            complete(deployment, f"w{i:03d} w001 w002", **witness.ask) for i in range(5)
        ]
        delta = deployment.evidence().since(before)

    named = [named_in(witness, {}, answer) for answer in answers]
    assert None not in named
    assert not {p for p, _ in named} & {d for _, d in named}
    for role in (Role.PREFILL, Role.DECODE):
        (worker,) = deployment.endpoints(role)
        assert delta.increase(worker.service, requests) == 5
    logged = named_in_log(witness, delta.new_log("router"))
    assert logged == {"prefill": [p for p, _ in named], "decode": [d for _, d in named]}


def test_ready_means_all_workers_of_each_role(up):
    with up("dynamo_mock_64p64d") as deployment:
        answer = httpx.get(f"{deployment.url}/v1/models/tiny/ready", trust_env=False)

    types = answer.json()["namespaces"]["dynamo"]["worker_types"]
    assert (types["prefill"]["workers"], types["decode"]["workers"]) == (64, 64)


def test_model_name_with_a_slash_gets_ready(up):
    model = spec_of("dynamo_mock_1p1d").model
    named = model.model_copy(update={"served_name": "org/Some-Model-FP8"})

    with up("dynamo_mock_1p1d", model=named) as deployment:
        listed = httpx.get(f"{deployment.url}/v1/models", trust_env=False).json()

    assert [entry["id"] for entry in listed["data"]] == ["org/Some-Model-FP8"]


def test_settings_of_the_shell_do_not_leak_in(up, monkeypatch):
    monkeypatch.setenv("DYN_NAMESPACE", "somebody-elses")
    monkeypatch.setenv("DYN_SYSTEM_PORT", "1")
    monkeypatch.setenv("ETCD_ENDPOINTS", "http://127.0.0.1:1")
    monkeypatch.setenv("NATS_SERVER", "nats://127.0.0.1:1")

    with up("dynamo_mock_1p1d") as deployment:
        for process in deployment.processes.values():
            env = psutil.Process(int(process.identity()["pid"])).environ()
            assert env["DYN_DISCOVERY_BACKEND"] == "file"
            assert not {"DYN_NAMESPACE", "ETCD_ENDPOINTS", "NATS_SERVER"} & env.keys()


def test_losing_etcd_is_a_failure_although_dynamo_exits_with_0(up):
    with up("dynamo_mock_etcd_1p1d") as deployment:
        etcd = deployment.processes["etcd"]
        psutil.Process(int(etcd.identity()["pid"])).kill()

        with pytest.raises(ProcessDied, match="'etcd' was killed by signal 9"):
            until_dead(deployment)
        dynamo = [deployment.processes[n] for n in ("prefill-0", "decode-0", "router")]
        wait_until(
            lambda: None not in [process.exit_code() for process in dynamo],
            "Dynamo gives up without etcd",
        )
        with pytest.raises(ProcessDied, match="'decode-0' exited with code 0"):
            deployment.check_alive()


def test_a_killed_worker_is_named_at_once(up):
    with up("dynamo_mock_1p1d") as deployment:
        worker = deployment.processes["prefill-0"]
        psutil.Process(int(worker.identity()["pid"])).kill()

        with pytest.raises(ProcessDied, match="'prefill-0' was killed by signal 9"):
            until_dead(deployment)
