"""Readiness is asked for in the background, and silence is not progress."""

from __future__ import annotations

import http.server
import re
import threading

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.plan.model import ReadyPlan
from pytest_pd.probe.ready import Asker, Wait, probe_for
from tests.kit import free_ports, service, wait_until


class Quiet(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(self.path.strip("/") or 200))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield f"127.0.0.1:{made.server_address[1]}"
        made.shutdown()
        thread.join()


def ask(kind, target, log=None):
    return probe_for(ReadyPlan(kind, target), log)()


@pytest.mark.parametrize("status", [200, 204])
def test_any_good_status_is_ready(server, status):
    assert ask("http", f"http://{server}/{status}") is None


@pytest.mark.parametrize("status", [404, 503, 302])
def test_any_other_status_is_said(server, status):
    assert ask("http", f"http://{server}/{status}") == f"HTTP {status}"


def test_a_port_without_listener_refuses():
    (port,) = free_ports(1)

    assert ask("http", f"http://127.0.0.1:{port}/") == "connection refused"
    assert ask("tcp", f"127.0.0.1:{port}") == "connection refused"


def test_a_port_with_listener_is_ready(server):
    assert ask("tcp", server) is None


def test_a_log_line_makes_ready(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("loading\n")
    assert "no line like" in ask("log", "^ready$", log)

    log.write_text("loading\nready\n")
    assert ask("log", "^ready$", log) is None


def test_started_is_ready_at_once(tmp_path):
    assert ask("started", "", tmp_path) is None


def test_an_unknown_kind_names_the_known_ones(tmp_path):
    with pytest.raises(SpecError, match="htp") as caught:
        probe_for(ReadyPlan("htp", ""), tmp_path)

    assert "http" in caught.value.hint


def test_a_slow_probe_delays_no_other():
    release = threading.Event()
    with Asker() as asker:
        asker.ask("slow", lambda: release.wait(60) and None)
        wait_until(lambda: asker.ask("fast", lambda: None) is None, "the fast answer")

        assert asker.ask("slow", lambda: None) == "no answer yet"
        release.set()


def test_an_answer_is_asked_for_again_after_it_came():
    answers = iter(["not yet", None])
    with Asker() as asker:
        seen = []
        wait_until(
            lambda: seen.append(asker.ask("x", lambda: next(answers))) or None in seen,
            "the second answer",
        )

    assert "not yet" in seen


class Fake:
    name = "one"

    def __init__(self, log):
        self.log = log

    def exit_code(self):
        return None


def waiting(tmp_path, **ready):
    stages = (
        (r"shards: (\d+) of (\d+)", "shards"),
        ("weights (?:loaded|done)", "weights"),
        ("graphs", "graphs"),
    )
    plan = service("one", "x", ready=ReadyPlan("http", "", stages=stages, **ready))
    return Wait(plan, Fake(tmp_path / "one.log"), lambda: "no", 0.0, 0.0)


def test_a_budget_ends_the_wait(tmp_path):
    wait = waiting(tmp_path, budget_s=10, stall_s=100)

    assert wait.overdue(9.0) == ""
    assert re.search("not ready after 10 s", wait.overdue(11.0))


def test_silence_ends_the_wait(tmp_path):
    wait = waiting(tmp_path, budget_s=1000, stall_s=5)

    assert "no progress for 5 s" in wait.overdue(6.0)


def test_a_growing_log_is_progress(tmp_path):
    wait = waiting(tmp_path, budget_s=1000, stall_s=5)
    (tmp_path / "one.log").write_text("working\n")
    wait.look(4.0)

    assert wait.overdue(8.0) == ""


def test_the_latest_stage_is_shown(tmp_path):
    wait = waiting(tmp_path)
    (tmp_path / "one.log").write_text("weights loaded\ngraphs\n")
    wait.look(1.0)

    assert wait.stage == "graphs"
    assert wait.describe(3.0) == "one 3 s: graphs (not asked yet)"


def test_a_stage_cut_in_two_by_a_look_is_seen(tmp_path):
    wait, log = waiting(tmp_path), tmp_path / "one.log"
    log.write_text("x weights lo")
    wait.look(1.0)
    log.write_text("x weights loaded\n")
    wait.look(2.0)

    assert wait.stage == "weights"


def test_a_stage_tells_how_far_it_is(tmp_path):
    wait, log = waiting(tmp_path), tmp_path / "one.log"
    log.write_text("shards: 2 of 17\nshards: 3 of 17\n")
    wait.look(1.0)
    assert wait.describe(1.0) == "one 1 s: shards 3/17 (not asked yet)"

    log.write_text(log.read_text() + "graphs\n")
    wait.look(2.0)

    assert wait.describe(2.0) == "one 2 s: graphs (not asked yet)"


def test_each_stage_has_the_time_it_was_first_seen(tmp_path):
    wait, log = waiting(tmp_path), tmp_path / "one.log"
    log.write_text("shards: 1 of 2\n")
    wait.look(3.0)
    log.write_text("shards: 1 of 2\nshards: 2 of 2\nweights done\n")
    wait.look(7.5)

    assert wait.stages_s == {"shards": 3.0, "weights": 7.5}
