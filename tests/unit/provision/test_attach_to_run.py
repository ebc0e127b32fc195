"""What is up is used again: by run id with everything, by URL with what it says."""

from __future__ import annotations

import http.server
import json
import threading

import pytest

from pytest_pd.errors import ProcessDied, ProvisionError
from pytest_pd.plan.model import Role
from pytest_pd.provision.attach import attach_run, attach_url
from pytest_pd.provision.deploy import deploy
from pytest_pd.provision.local import LocalBackend
from pytest_pd.provision.reap import end_run
from pytest_pd.provision.rundir import RunDir, make_run_id
from pytest_pd.spec.cluster import ClusterSpec
from tests.kit import free_ports, toy_topology, wait_until


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A run that was left up: its root and its id."""
    (tmp_path / "runtime").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    run_id = make_run_id()
    run = RunDir(tmp_path / "runs" / f"x-{run_id}" / "toy")
    cluster = ClusterSpec(name="local")
    context = run.context(run_id, 5.0)
    with deploy(
        toy_topology(), LocalBackend(), cluster, context, keep_s=600.0
    ) as deployment:
        pass
    yield run, run_id, deployment
    end_run(run.path.parent)


def test_a_run_id_restores_plan_logs_and_processes(kept):
    run, run_id, deployment = kept

    found = attach_run(run_id[:5], root=run.path.parents[1])

    assert found.plan == deployment.plan
    assert found.attached
    assert set(found.evidence().pages) == {"prefill-0", "decode-0", "router"}
    assert found.logs["router"].read_text()
    found.check_alive()


def test_logs_of_nodes_that_somebody_else_holds_are_read_where_they_are(kept):
    run, run_id, _ = kept
    run.write_manifest(backend="slurm")
    (run.logs / "decode-0.log").unlink()

    found = attach_run(run_id, root=run.path.parents[1])
    logs = found.logs
    run.write_manifest(backend="local")

    assert not found.processes
    assert logs == {name: run.logs / f"{name}.log" for name in ("prefill-0", "router")}


@pytest.mark.parametrize("backend", ["ssh", "kubernetes"])
def test_copies_of_logs_that_nobody_goes_on_with_tell_nothing(kept, backend):
    run, run_id, _ = kept
    run.write_manifest(backend=backend)

    logs = attach_run(run_id, root=run.path.parents[1]).logs
    run.write_manifest(backend="local")

    assert logs == {}


def test_a_death_since_then_is_told(kept):
    run, run_id, _ = kept
    found = attach_run(run_id, root=run.path.parents[1])
    found.processes["decode-0"].kill(9)
    gone = found.processes["decode-0"]
    wait_until(lambda: gone.exit_code() is not None, "the end")

    with pytest.raises(ProcessDied, match="decode-0"):
        attach_run(run_id, root=run.path.parents[1])


def test_a_run_that_is_down_says_so(kept):
    run, run_id, _ = kept
    end_run(run.path.parent)

    with pytest.raises(ProvisionError, match="not up any more") as caught:
        attach_run(run_id, root=run.path.parents[1])

    assert "pytest-pd up toy" in caught.value.hint


def test_a_topology_that_the_run_has_not_is_refused(kept):
    run, run_id, _ = kept

    with pytest.raises(ProvisionError, match="other") as caught:
        attach_run(run_id, root=run.path.parents[1], topology="other")

    assert "toy" in caught.value.hint


class Models(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        served = self.server.served
        models = [{"id": name, **self.server.told} for name in served]
        text = json.dumps({"data": models})
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Models) as made:
        made.served, made.told = ["big-model"], {}
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def url_of(server):
    return f"http://127.0.0.1:{server.server_address[1]}"


def test_of_a_url_only_what_it_tells_is_taken_for_sure(server):
    """Tokens of an unknown server on GPUs differ in batches of another size."""
    unknown = attach_url(url_of(server)).plan
    server.told = {"owned_by": "vllm"}
    vllm = attach_url(url_of(server)).plan

    assert (unknown.engine, vllm.engine) == ("unknown", "vllm")
    assert {unknown.expected.deterministic, vllm.expected.deterministic} == {"floor"}


def test_a_url_tells_its_model_and_has_the_workers_that_are_named(server):
    found = attach_url(
        url_of(server) + "/", prefill=["http://a:1/"], decode=["http://b:2"]
    )

    assert found.plan.served_model == "big-model"
    assert found.url == url_of(server)
    assert [e.url for e in found.endpoints(Role.PREFILL)] == ["http://a:1"]
    assert found.endpoints(Role.DECODE)[0].metrics_url == "http://b:2/metrics"
    assert found.processes == {}


def test_a_url_that_serves_nothing_is_refused(server):
    server.served = []

    with pytest.raises(ProvisionError, match="names no model"):
        attach_url(url_of(server))


def test_a_url_where_nobody_answers_is_refused():
    (port,) = free_ports(1)

    with pytest.raises(ProvisionError, match="Nothing to attach to") as caught:
        attach_url(f"http://127.0.0.1:{port}")

    assert "base URL" in caught.value.hint
