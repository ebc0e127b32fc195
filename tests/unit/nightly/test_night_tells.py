"""Summary and webhook: what people read, and what they must not."""

from __future__ import annotations

import json
import threading
from datetime import date
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.nightly.judgement import Attempt, judge_night
from pytest_pd.nightly.night import check_words, webhook_address
from pytest_pd.nightly.summary import summary, webhook_body
from pytest_pd.nightly.webhook import post
from pytest_pd.report.outcome import TestOutcome
from pytest_pd.spec.quarantine import NOBODY, QuarantinedSpec, QuarantineSpec

KNOWN = QuarantineSpec(
    quarantine=(
        QuarantinedSpec(
            test="known", owner="ana", reason="issue 7", expires=date(2026, 12, 1)
        ),
    )
)


def night(known=NOBODY, *names):
    outcomes = tuple(
        TestOutcome(name, "t", "failed", "call", 1.0, "key hunter22 <b>", "server")
        for name in names or ("bad",)
    )
    attempts = [Attempt(1, 5.0, outcomes, run_dir="/secret/place")]
    return judge_night(attempts, known), attempts


def test_the_page_tells_verdict_reason_and_code():
    page = summary(*night(), NOBODY)

    assert "# Night: failed (server)" in page
    assert "exit code 13" in page
    assert "`bad`: key hunter22 &lt;b>" in page


def test_quarantine_has_a_section_of_its_own():
    page = summary(*night(KNOWN, "known"), KNOWN)

    assert "## In quarantine, and not green" in page
    assert "(ana, until 2026-12-01: issue 7)" in page
    assert "## Not green" not in page


def test_a_long_list_says_how_much_is_left_out():
    page = summary(*night(NOBODY, *map(str, range(25))), NOBODY)

    assert "- and 5 more" in page


def test_the_body_holds_no_secret_and_no_path():
    body = json.dumps(webhook_body(night()[0], "n1", ["hunter22"]))

    assert "hunter22" not in body
    assert "/secret/place" not in body
    assert "failed (server)" in body


GATE = ("worse: s/t::ttft is 1.3", "passed: s/t::itl", "gate FAILED: 1 worse")


def test_what_the_gate_found_is_told():
    fine = TestOutcome("a", "t", "passed", "call", 1.0)
    attempts = [
        Attempt(1, 5.0, (fine,), gate="worse", gate_lines=GATE),
        Attempt(0, 5.0, (fine,), gate="passed", gate_lines=("gate passed: 2 passed",)),
    ]
    found = judge_night(attempts, NOBODY)

    page = summary(found, attempts, NOBODY)

    assert "## Gate\n\n- gate FAILED: 1 worse\n- worse: s/t::ttft is 1.3\n\n" in page
    assert "worse: s/t::ttft is 1.3" in webhook_body(found, "n1", [])["text"]


def test_a_gate_that_cannot_judge_tells_no_path_to_the_webhook():
    fine = TestOutcome("a", "t", "passed", "call", 1.0)
    lines = ("gate FAILED: no file /secret/place",)
    attempts = [Attempt(1, 5.0, (fine,), gate="no judgement", gate_lines=lines)]
    found = judge_night(attempts, NOBODY)

    assert lines[0] in summary(found, attempts, NOBODY)
    assert "/secret/place" not in webhook_body(found, "n1", [])["text"]


@pytest.fixture
def listener():
    """A web server that keeps the bodies it gets and answers `code`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers["content-length"])
            server.bodies.append(json.loads(self.rfile.read(length)))
            self.send_response(server.code)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.bodies, server.code = [], 204
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_webhook_gets_the_body(listener):
    url = f"http://127.0.0.1:{listener.server_port}/T0KEN"

    assert post(url, {"text": "green"}) == ""
    assert listener.bodies == [{"text": "green"}]


def test_a_refusal_is_told_without_the_address(listener):
    listener.code = 403

    assert post(f"http://127.0.0.1:{listener.server_port}/T0KEN", {}) == (
        "the webhook answered 403"
    )


def test_nobody_there_is_told_without_the_address():
    said = post("http://127.0.0.1:1/T0KEN", {})

    assert "was not told" in said
    assert "T0KEN" not in said


def test_the_address_comes_from_a_variable():
    assert webhook_address("HOOK", {"HOOK": "https://x/y"}) == "https://x/y"
    assert webhook_address("", {}) == ""


def test_an_address_on_the_command_line_is_refused():
    with pytest.raises(SpecError, match="holds no web address") as told:
        webhook_address("https://x/T0KEN", {})
    assert "T0KEN" not in str(told.value)


@pytest.mark.parametrize(
    "word", ["--junitxml=a.xml", "--junitxml", "--run-dir", "--pd-run-dir=x"]
)
def test_what_a_night_sets_itself_is_refused(word):
    with pytest.raises(SpecError, match="sets --"):
        check_words(["suites", word])
