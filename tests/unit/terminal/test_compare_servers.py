"""``pytest-pd compare URL URL``: in turn, on the same prompts."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from pytest_pd.cli import main
from pytest_pd.errors import MeasurementError
from pytest_pd.load.point import LoadPoint
from pytest_pd.load.prompts import Prompt
from pytest_pd.load.run import run_load
from pytest_pd.load.target import Target
from pytest_pd.load.truth_process import truth_server
from pytest_pd.measure.ratio import Change
from pytest_pd.spec.workload import WorkloadSpec
from pytest_pd.terminal import versus

SHORT = """name: short
input_tokens: 16
output_tokens: 4
concurrency: [2]
requests: 10
warmup_per_concurrency: 1
"""


@pytest.fixture(scope="module")
def urls():
    with ExitStack() as stack:
        times = (("--ttft-ms", "5"), ("--ttft-ms", "40"))
        yield [stack.enter_context(truth_server(*t)).url for t in times]


@pytest.fixture
def workload(tmp_path):
    path = tmp_path / "short.yaml"
    path.write_text(SHORT)
    return str(path)


def test_the_slower_server_is_told_apart(urls, workload, capsys):
    main(["compare", *urls, "--workload", workload, "--rounds", "2", "--level", "full"])

    said = capsys.readouterr().out
    assert f"## {urls[1]} against {urls[0]}" in said
    (row,) = [line for line in said.splitlines() if "::ttft " in line]
    assert row.startswith("| worse")


def test_a_url_may_end_in_v1(urls, monkeypatch):
    asked = []

    def versus_of(sides, *_, **__):
        asked.extend(sides)
        return [versus.Side(url) for url in sides]

    monkeypatch.setattr(versus, "versus", versus_of)
    main(["compare", f"{urls[0]}/v1", f"{urls[1]}/v1/"])

    assert asked == urls


def test_a_point_that_fails_wholly_is_one_line():
    prompts = [Prompt(text=f"a {k} b", output_tokens=2) for k in range(2)]
    offered = LoadPoint(concurrency=2, requests=2)

    result = run_load(Target(url="http://127.0.0.1:1"), offered, prompts)

    assert versus.line_of(result) == "2 connect"


def test_a_comparison_of_servers_is_written_where_asked(urls, workload, tmp_path):
    out = tmp_path / "out"
    words = ["--workload", workload, "--rounds", "2", "--level", "full"]
    main(["compare", *urls, *words, "--out", str(out)])

    heading = f"{urls[1]} against {urls[0]}"
    assert f"## {heading}" in (out / "compare.md").read_text()
    page = (out / "compare.html").read_text()
    assert f"<h2>{heading}</h2>" in page
    assert "Plans and environments" not in page


def test_servers_with_a_key_are_asked_with_it(urls, workload, monkeypatch):
    seen = []

    def run_load(target, point, prompts, **_):
        seen.append(dict(target.headers))

    monkeypatch.setattr(versus, "run_load", run_load)
    monkeypatch.setattr(versus, "line_of", lambda result: "")
    monkeypatch.setattr(versus.Side, "note", lambda side, point, result: None)
    monkeypatch.setenv("A_KEY", "sk-planted")

    main(["compare", *urls, "--workload", workload, "--api-key-env", "A_KEY"])

    assert seen
    assert all(headers["Authorization"] == "Bearer sk-planted" for headers in seen)


def test_sides_take_turns():
    asked = []

    def run(url, number):
        asked.append((number, url))
        return iter(())

    versus.in_turn(["A", "B"], 2, run)
    assert asked == [(0, "A"), (0, "B"), (1, "A"), (1, "B")]


@pytest.mark.parametrize("own_prompts", [False, True])
def test_a_round_has_the_same_prompts_for_all_and_no_other_round_has(
    own_prompts, urls, monkeypatch
):
    seen = {}

    def run_load(target, point, prompts, **_):
        seen.setdefault(target.url, []).append([(p.text, p.token_ids) for p in prompts])
        return None

    monkeypatch.setattr(versus, "run_load", run_load)
    monkeypatch.setattr(versus, "line_of", lambda result: "")
    spec = WorkloadSpec(
        name="x", input_tokens=16, output_tokens=4, concurrency=[1], requests=3
    )
    run = versus.runner(spec, urls, level="full", own_prompts=own_prompts)
    for number in range(2):
        for url in urls:
            list(run(url, number))

    first, second = (seen[url] for url in urls)
    assert (first == second) is not own_prompts
    assert first[0] != first[1]


def test_what_failed_is_invalid_and_not_compared(capsys, workload, urls):
    nobody = "http://127.0.0.1:1"
    code = main(["compare", urls[0], nobody, "--workload", workload])

    assert code != 0
    said = capsys.readouterr().err
    assert "does not say what it serves" in said
    assert "--model" not in said


def test_servers_and_folders_do_not_mix(urls, tmp_path, capsys):
    assert main(["compare", urls[0], str(tmp_path)]) != 0
    assert "is no URL" in capsys.readouterr().err


def test_a_faster_side_is_better():
    old, new = versus.Side("A"), versus.Side("B")
    for side, value in ((old, 0.2), (new, 0.1)):
        side.samples[("c1", "ttft")] = [[value + k / 1e4 for k in range(50)]] * 3
        side.units[("c1", "ttft")] = "s"

    (row,) = versus.verdicts(old, new, effect=0.05, confidence=0.95, jitter=0.03)
    assert row.change is Change.BETTER
    assert row.name == "c1::ttft"


def rounds_of(value, metric="ttft"):
    side = versus.Side("A")
    side.samples[("c1", metric)] = [[value] * 50] * 3
    side.units[("c1", metric)] = "s"
    return side


def test_a_metric_that_is_0_has_no_ratio_and_the_others_keep_theirs():
    old, new = rounds_of(0.2), rounds_of(0.1)
    for side, gap in ((old, 0.0), (new, 0.01)):
        side.samples[("c1", "itl")] = [[gap] * 50] * 3
        side.units[("c1", "itl")] = "s"

    rows = versus.verdicts(old, new, effect=0.05, confidence=0.95, jitter=0.03)

    assert [row.name for row in rows] == ["c1::ttft"]


def test_a_round_that_does_not_hold_leaves_no_samples(urls):
    prompts = [Prompt(text=f"a {k} b", output_tokens=2) for k in range(2)]
    offered = LoadPoint(concurrency=2, requests=2)
    side = versus.Side(urls[0])

    side.note("c2", run_load(Target(url=urls[0]), offered, prompts))

    assert "fewer than 4 x concurrency" in side.invalid[0]
    assert side.samples == {}


def test_reasons_are_told_though_nothing_can_be_compared(capsys, urls, monkeypatch):
    sides = [versus.Side(url, invalid=["c2: sent late"]) for url in urls]
    monkeypatch.setattr(versus, "versus", lambda *_, **__: sides)

    assert main(["compare", *urls]) == 1
    said = capsys.readouterr().out
    assert "Nothing that holds was measured both" in said
    assert f"INVALID: {urls[1]} c2: sent late" in said


def ends_in_round(number, error, monkeypatch):
    """Measure alike in every round, and let `error` end one between its sides."""

    def runner(spec, urls, **_):
        def run(url, round_number):
            if round_number == number and url == urls[1]:
                raise error
            yield "c1", 0.2 if url == urls[0] else 0.1

        return run

    def note(side, point, value):
        side.samples.setdefault((point, "ttft"), []).append([value] * 50)
        side.units[(point, "ttft")] = "s"

    monkeypatch.setattr(versus, "runner", runner)
    monkeypatch.setattr(versus.Side, "note", note)


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (KeyboardInterrupt(), 130, "then: KeyboardInterrupt"),
        (MeasurementError("The server is gone."), 2, "then: The server is gone."),
    ],
)
def test_a_round_that_ends_leaves_those_before_it_judged_and_written(
    error, code, told, workload, tmp_path, monkeypatch, capsys
):
    ends_in_round(2, error, monkeypatch)
    words = ["http://a", "http://b", "--workload", workload, "--rounds", "5"]

    assert main(["compare", *words, "--out", str(tmp_path)]) == code

    for text in (capsys.readouterr().out, (tmp_path / "compare.md").read_text()):
        assert f"2 of 5 rounds were measured, {told}" in text
        assert "| better" in text
        assert "| 2 / 2 |" in text
    assert "2 of 5 rounds" in (tmp_path / "compare.html").read_text()


def test_a_first_round_that_ends_leaves_nothing_to_judge(workload, monkeypatch, capsys):
    ends_in_round(0, MeasurementError("The server is gone."), monkeypatch)

    assert main(["compare", "http://a", "http://b", "--workload", workload]) == 2

    said = capsys.readouterr()
    assert "rounds" not in said.out
    assert "The server is gone." in said.err


def test_a_folder_that_cannot_be_written_is_refused_first(monkeypatch, capsys):
    monkeypatch.setattr(versus, "versus", None)

    assert main(["compare", "http://a", "http://b", "--out", "/dev/null"]) == 2
    assert "--out /dev/null cannot be a folder" in capsys.readouterr().err
