"""The helper that renews the lease in the cluster, from before there is one."""

from __future__ import annotations

import sys

import pytest

from pytest_pd.errors import InfrastructureLost
from pytest_pd.provision.kubernetes.client import ApiError
from pytest_pd.provision.kubernetes.helper import RELAY, Helper
from pytest_pd.provision.kubernetes.relay import Relay


class Cluster:
    """Answers one request after the other with what it was given."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.deleted = []

    def request(self, *_, **__):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def delete(self, path):
        self.deleted.append(path)
        return True


def refused(status):
    return ApiError("no", status=status, reason="")


def relay(cluster, tmp_path, ours=""):
    lease = tmp_path / "lease"
    lease.write_text("1")
    request = {"namespace": "ns", "name": "toy", "lease": str(lease), "ttl_s": 1}
    return Relay(cluster, {**request, "ours": ours})


def test_a_lease_that_is_not_made_yet_is_waited_for(tmp_path):
    made = relay(Cluster(refused(404), refused(404), {}), tmp_path)

    assert [made.renew() for _ in range(3)] == [True, True, True]


def test_a_lease_that_somebody_deleted_ends_the_helper(tmp_path, monkeypatch):
    monkeypatch.setattr("pytest_pd.provision.kubernetes.relay.GONE_S", 0.0)
    made = relay(Cluster({}, refused(404)), tmp_path)

    assert [made.renew(), made.renew()] == [True, False]


def test_a_lease_that_is_not_there_for_a_moment_ends_nothing(tmp_path):
    made = relay(Cluster({}, refused(404), {}), tmp_path)

    assert [made.renew(), made.renew(), made.renew()] == [True, True, True]


@pytest.mark.parametrize("why", [refused(403), InfrastructureLost("silent")])
def test_a_server_that_refuses_or_is_silent_is_asked_again(why, tmp_path):
    assert relay(Cluster(why), tmp_path).renew()


@pytest.mark.parametrize(("ours", "count"), [("", 1), ("own", 2)])
def test_the_end_takes_the_namespace_along_if_it_is_ours(ours, count, tmp_path):
    cluster = Cluster()
    relay(cluster, tmp_path, ours).end()

    assert len(cluster.deleted) == count
    assert cluster.deleted[0].endswith("/namespaces/ns/leases/toy")


def test_a_lease_that_is_over_before_anything_was_made_ends_all_the_same(tmp_path):
    cluster = Cluster(*[refused(404)] * 99)
    made = relay(cluster, tmp_path, "own")
    made.run()

    assert "/api/v1/namespaces/own" in cluster.deleted


KUBECTL = """\
#!{python}
import http.server, socketserver, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{{}}")
    do_PATCH = do_GET
    address_string = log_message = lambda *_: ""
path = sys.argv[-1].partition("=")[2]
socketserver.ThreadingUnixStreamServer(path, Answer).serve_forever()
"""


def test_a_helper_that_is_told_to_end_leaves_no_folder(tmp_path, monkeypatch):
    kubectl, lease = tmp_path / "kubectl", tmp_path / "lease"
    kubectl.write_text(KUBECTL.format(python=sys.executable))
    kubectl.chmod(0o755)
    lease.write_text("1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    helper = Helper(
        RELAY,
        {
            "site": {"kubectl": str(kubectl)},
            "namespace": "ns",
            "name": "toy",
            "ours": "",
            "lease": str(lease),
            "ttl_s": 60,
        },
        tmp_path / "log",
    )
    helper.start()
    assert list(tmp_path.glob("pytest-pd-kube-*"))

    helper.end()

    assert not list(tmp_path.glob("pytest-pd-kube-*"))
    assert (tmp_path / "log").read_text() == ""
