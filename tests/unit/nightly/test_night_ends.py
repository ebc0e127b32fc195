"""However a night ends, it leaves what people read in the morning."""

from __future__ import annotations

import json
import os

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.nightly import night as module
from pytest_pd.nightly.judgement import Attempt
from pytest_pd.nightly.launch import Listed, list_tests
from pytest_pd.nightly.night import Wishes, spend
from pytest_pd.report.outcome import TestOutcome
from tests.run_kit import entry, passed, write_run
from tests.unit.nightly.test_night_budget import record

JUNIT = (
    '<testsuites><testsuite name="pytest"><testcase classname="s" name="b[topo:k2]"/>'
    "</testsuite></testsuites>"
)


def told(name, verdict="passed", **fields):
    return TestOutcome(name, "k2", verdict, "call", 1.0, **fields)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A place where nights are spent; pytest is replaced by what it leaves."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "list_tests", lambda *_: Listed(("a",), ("k2",)))
    monkeypatch.setattr(module, "webhook_address", lambda *_: "http://hook")
    posted = []
    monkeypatch.setattr(module, "post", lambda _, body: posted.append(body) or "")
    return posted


def left(tmp_path):
    """Return verdict and page of the newest night."""
    folder = max(tmp_path.glob("nights/*"))
    found = json.loads((folder / "nightly.json").read_text())
    return found["verdict"], (folder / "summary.md").read_text()


def test_a_refused_night_leaves_record_and_page_and_tells_the_webhook(site, tmp_path):
    (tmp_path / "nights").mkdir()
    record(tmp_path / "nights", "1")

    assert spend(Wishes((), budget_s=0.01), print) == 32

    verdict, page = left(tmp_path)
    assert verdict == "over budget"
    assert "over the budget of 0.01 s" in page
    assert [body["exit_code"] for body in site] == [32]


def test_the_address_of_the_webhook_is_in_no_environment_of_a_test(site, monkeypatch):
    monkeypatch.setenv("MORNING", "http://hook/T0KEN")
    seen = []
    listed = module.list_tests

    def look(*args):
        seen.append(dict(os.environ))
        return listed(*args)

    def run(_words, folder, *_, **__):
        seen.append(dict(os.environ))
        folder.mkdir()
        return Attempt(0, 1.0, (told("a"),))

    monkeypatch.setattr(module, "list_tests", look)
    monkeypatch.setattr(module, "run_tests", run)

    assert spend(Wishes((), webhook="MORNING"), print) == 0

    assert ["T0KEN" in str(environ) for environ in seen] == [False, False]
    assert len(site) == 1


def test_a_night_after_a_refused_one_is_begun(site, monkeypatch, tmp_path):
    (tmp_path / "nights").mkdir()
    record(tmp_path / "nights", "1")
    limits = []

    def run(_words, folder, *_, limit_s, **__):
        limits.append(limit_s)
        folder.mkdir()
        return Attempt(0, 1.0, (told("a"),))

    monkeypatch.setattr(module, "run_tests", run)

    codes = [spend(Wishes((), budget_s=0.01), print) for _ in range(2)]

    assert codes == [32, 0]
    assert len(limits) == 1
    assert 0 <= limits[0] < 0.01


def test_tests_that_cannot_be_listed_leave_the_reason(site, tmp_path, monkeypatch):
    def refuse(*_):
        raise SpecError("pytest cannot list the tests.", hint="try it without")

    monkeypatch.setattr(module, "list_tests", refuse)

    with pytest.raises(SpecError):
        spend(Wishes(()), print)

    verdict, page = left(tmp_path)
    assert verdict == "not started"
    assert "pytest cannot list the tests." in page
    assert [body["exit_code"] for body in site] == [2]


def test_words_that_are_no_text_are_escaped_on_the_page(site, tmp_path, monkeypatch):
    def refuse(words, *_):
        raise SpecError(f"file not found: {words[0]}")

    monkeypatch.setattr(module, "list_tests", refuse)
    with pytest.raises(SpecError):
        spend(Wishes((os.fsdecode(b"\xff"),)), print)

    assert "file not found: \\udcff" in left(tmp_path)[1]


def test_a_conftest_that_writes_no_text_is_told_all_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conftest.py").write_text("import os; os.write(2, b'\\xff'); 1 / 0")

    with pytest.raises(SpecError, match="ZeroDivisionError"):
        list_tests(["-s", "-p", "no:cacheprovider", str(tmp_path)], tmp_path / "night")


def test_collecting_that_does_not_end_is_out_of_time(site, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "list_tests", list_tests)
    monkeypatch.setattr(module, "LISTING_S", 0.0)
    suite = tmp_path / "test_hangs.py"
    suite.write_text("import time\ntime.sleep(600)\n")

    assert spend(Wishes((str(suite),), budget_s=5), print) == 33

    verdict, page = left(tmp_path)
    assert verdict == "out of time"
    assert "still collected tests after 5 s: nothing was started" in page
    assert [body["exit_code"] for body in site] == [33]


def test_a_night_that_does_not_run_leaves_no_junit_of_an_earlier_one(site, tmp_path):
    (tmp_path / "nights").mkdir()
    record(tmp_path / "nights", "1")
    (tmp_path / "night.xml").write_text(JUNIT)

    spend(Wishes((), budget_s=0.01, junit=tmp_path / "night.xml"), print)

    assert not (tmp_path / "night.xml").exists()


def test_a_junit_that_cannot_be_written_is_refused_at_the_start(site, tmp_path):
    with pytest.raises(SpecError, match="cannot be written"):
        spend(Wishes((), junit=tmp_path), print)


def test_a_retry_without_figures_leaves_the_gate_as_it_was(site, tmp_path, monkeypatch):
    gate = tmp_path / "g.yaml"
    gate.write_text('baseline: ["runs/*"]\nmetrics: {ttft: {max_increase: 0.1}}\n')
    words = iter(["passed", "no judgement"])

    def run(_words, folder, run_dir, **_):
        folder.mkdir()
        word = next(words)
        again = word == "no judgement"
        write_run(run_dir, entries=[] if again else [entry()], verdict=passed())
        outcome = told("a") if again else told("a", "error", layer="infra")
        fields = {"gate": word, "gate_file": str(gate), "run_dir": str(run_dir)}
        return Attempt(1, 1.0, (outcome,), **fields)

    monkeypatch.setattr(module, "run_tests", run)

    assert spend(Wishes(()), print) == 0


def test_what_a_killed_pytest_told_is_in_the_merged_junit(site, tmp_path, monkeypatch):
    lost = told("s.py::b[topo:k2]", "error", reason="node \x1b n3", layer="infra")
    attempts = iter(
        [
            Attempt(-9, 1.0, (told("s.py::a[topo:k2]"), lost)),
            Attempt(0, 1.0, (told("s.py::b[topo:k2]"),)),
        ]
    )

    def run(_words, folder, *_, **__):
        folder.mkdir()
        made = next(attempts)
        if not made.exit_code:
            (folder / "junit.xml").write_text(JUNIT)
        return made

    listed = Listed(("s.py::a[topo:k2]", "s.py::b[topo:k2]"), ("k2",))
    monkeypatch.setattr(module, "list_tests", lambda *_: listed)
    monkeypatch.setattr(module, "run_tests", run)

    assert spend(Wishes((), junit=tmp_path / "night.xml"), print) == 0

    text = (tmp_path / "night.xml").read_text()
    assert 'name="a[topo:k2]"' in text
    assert text.count('name="b[topo:k2]"') == 1
    assert "first_failure" in text


def full(*_, **__):
    raise OSError(28, "No space left on device")


def attempts_of(monkeypatch, *made):
    """Let pytest be called for these attempts; after them no more can be made."""
    left = iter(made)

    def run(_words, folder, *_, **__):
        if (attempt := next(left, None)) is None:
            full()
        folder.mkdir()
        return attempt

    monkeypatch.setattr(module, "run_tests", run)


@pytest.mark.parametrize(
    ("verdict", "code", "word"),
    [("passed", 21, "invalid (infra)"), ("failed", 14, "failed (client)")],
)
def test_a_night_that_cannot_be_written_tells_its_verdict_and_is_not_green(
    verdict, code, word, site, monkeypatch
):
    attempts_of(monkeypatch, Attempt(int(code == 14), 1.0, (told("a", verdict),)))
    monkeypatch.setattr(module, "write_record", full)
    said = []

    assert spend(Wishes(()), said.append) == code
    assert f"night: {word}, exit code {code}" in said[-1]
    assert "cannot be written down: [Errno 28] No space" in said[-1]
    assert [body["exit_code"] for body in site] == [code]


def test_a_page_never_calls_green_what_could_not_be_recorded(
    site, tmp_path, monkeypatch
):
    attempts_of(monkeypatch, Attempt(0, 1.0, (told("a"),)))
    monkeypatch.setattr(module, "write_record", full)
    spend(Wishes(()), print)

    (page,) = tmp_path.glob("nights/*/summary.md")
    assert page.read_text().startswith("# Night: invalid (infra)")


def test_an_attempt_that_cannot_be_made_loses_none_before_it(
    site, tmp_path, monkeypatch
):
    lost = told("a", "error", layer="infra", reason="node n3")
    attempts_of(monkeypatch, Attempt(1, 1.0, (lost,)))
    said = []

    assert spend(Wishes(()), said.append) == 11

    assert left(tmp_path)[0] == "failed"
    assert any("attempt 2 cannot be made: [Errno 28]" in line for line in said)


def test_a_first_attempt_that_cannot_be_made_is_no_verdict(site, tmp_path, monkeypatch):
    attempts_of(monkeypatch)

    assert spend(Wishes(()), print) == 31
    assert left(tmp_path)[0] == "no verdict"
