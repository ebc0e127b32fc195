"""A gate fails what got slower, says when it cannot tell, and never judges nothing."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from pytest_pd.cli import main
from pytest_pd.errors import MeasurementError, SpecError
from pytest_pd.report.comparable import other_load
from pytest_pd.report.gate import GateWord, judge, read_baseline
from pytest_pd.report.read import read_run
from pytest_pd.spec.gate import GateSpec, read_gate
from tests.run_kit import entry, passed, write_run

RNG = np.random.default_rng(3)
METRICS = {"ttft": {"max_increase": 0.1}}


def samples(scale=1.0, jitter=0.0, count=200):
    weather = math.exp(RNG.normal(0, jitter))
    return [*(np.exp(RNG.normal(-3, 0.05, count)) * scale * weather)]


def make(path, scale=1.0, jitter=0.0, **more):
    entries = [entry("ttft", samples(scale, jitter), **more)]
    return read_run(write_run(path, entries=entries, verdict=passed()))


def spec(**more):
    return GateSpec.model_validate({"baseline": ["b*"], "metrics": METRICS, **more})


@pytest.fixture
def baseline(tmp_path):
    return [make(tmp_path / f"b{i}", jitter=0.01) for i in range(8)]


def call(run, word):
    """Leave in a run what its gate said of it."""
    verdict = {"run_id": run.run_id, **run.verdict, "gate": word}
    (run.path / "verdict.json").write_text(json.dumps(verdict))


def words(result):
    return [line.word for line in result.lines]


def test_unchanged_run_passes(tmp_path, baseline):
    result = judge(spec(), make(tmp_path / "new"), baseline)

    assert words(result) == [GateWord.PASSED]
    assert not result.failed


def test_slower_run_fails_and_says_by_how_much(tmp_path, baseline):
    result = judge(spec(), make(tmp_path / "new", 1.5), baseline)

    assert result.failed
    assert words(result) == [GateWord.WORSE]
    assert "of 8 baseline run(s), limit 1.100" in str(result.lines[0])
    assert result.summary().startswith("gate FAILED: 1 worse; it is no baseline of")
    assert "pytest-pd accept-baseline --force" in result.summary()


def test_faster_run_passes(tmp_path, baseline):
    assert not judge(spec(), make(tmp_path / "new", 0.5), baseline).failed


def test_rough_baseline_is_too_noisy_and_fails_only_if_asked(tmp_path):
    rough = [make(tmp_path / f"b{i}", 1.0 + 0.4 * (i % 2)) for i in range(6)]
    new = make(tmp_path / "new", 1.2)

    assert words(judge(spec(), new, rough)) == [GateWord.TOO_NOISY]
    assert not judge(spec(), new, rough).failed
    assert (
        judge(spec(), new, rough)
        .summary()
        .startswith("gate cannot tell: 1 too noisy; nothing passed")
    )
    assert judge(spec(fail_on_noise=True), new, rough).failed


@pytest.mark.parametrize(
    "other",
    [
        {"mode": "rehearsal"},
        {"topology_hash": "x"},
        {"hardware": "h100"},
        {"label": "a"},
    ],
)
def test_unlike_runs_are_no_baseline(tmp_path, baseline, other):
    new = make(tmp_path / "new", 9.0, **other)

    result = judge(spec(), new, baseline)

    assert words(result) == [GateWord.NO_BASELINE]
    assert result.failed
    assert "FAILED: 1 no baseline; nothing was judged" in result.summary()


def test_first_run_that_the_patterns_name_passes_and_is_told(tmp_path):
    new = make(tmp_path / "b0")
    known = read_baseline(spec(), tmp_path, without=[tmp_path / "b0"])

    result = judge(spec(), new, known)

    assert known == []
    assert not result.failed
    assert result.summary() == (
        "gate passed: 1 no baseline; this is the first run that its baseline names"
    )
    assert judge(spec(fail_on_missing=True), new, known).failed


def test_patterns_that_name_nothing_are_refused(tmp_path, baseline):
    with pytest.raises(MeasurementError, match="'bb\\*' names no run"):
        read_baseline(spec(baseline=["bb*"]), tmp_path, without=[tmp_path / "b0"])


def test_one_figure_without_a_baseline_fails_only_if_asked(tmp_path, baseline):
    entries = [entry("ttft", samples()), entry("ttft", samples(), streams=8)]
    new = read_run(write_run(tmp_path / "new", entries=entries, verdict=passed()))

    assert set(words(judge(spec(), new, baseline))) == {
        GateWord.PASSED,
        GateWord.NO_BASELINE,
    }
    assert not judge(spec(), new, baseline).failed
    assert judge(spec(fail_on_missing=True), new, baseline).failed


def test_points_that_the_run_lost_are_told_and_fail_only_if_asked(tmp_path):
    def sweep(name, points, **more):
        entries = [entry("ttft", samples(), streams=n, **more) for n in points]
        return read_run(write_run(tmp_path / name, entries=entries, verdict=passed()))

    old = [sweep(f"b{i}", (1, 8, 64)) for i in range(5)]
    old += [sweep("other", (16,), hardware="h100")]
    new = sweep("new", (1,))

    result = judge(spec(), new, old)

    lost = [line.name for line in result.of(GateWord.NO_FIGURE)]
    assert ["c64" in lost[0], "c8-" in lost[1]] == [True, True]
    assert len(lost) == 2
    assert not result.failed
    assert judge(spec(fail_on_missing=True), new, old).failed


GOOD = {"goodput_time": {"max_increase": 0.1}}


def night(path, *metrics, outcomes=(), **more):
    """Leave a run with some metrics of one test; of goodput one sample, as it has."""
    entries = [
        entry(name, [0.13] if name == "goodput_time" else samples(), **more)
        for name in metrics
    ]
    more = {"outcomes": outcomes, "verdict": passed()}
    return read_run(write_run(path, entries=entries, **more))


@pytest.mark.parametrize("metrics", [{**METRICS, **GOOD}, GOOD])
def test_a_goodput_that_nothing_meets_any_more_is_worse(tmp_path, metrics):
    old = [night(tmp_path / f"b{i}", "ttft", "goodput_time") for i in range(8)]
    new = night(tmp_path / "new", "ttft")

    result = judge(spec(metrics=metrics), new, old)

    (line,) = result.of(GateWord.WORSE)
    assert result.failed
    assert str(line).endswith(
        "::goodput_time; missing now: 8 baseline run(s) have it, and its test was "
        "measured without it"
    )


@pytest.mark.parametrize(
    ("verdict", "word"),
    [
        ("passed", GateWord.WORSE),
        ("skipped", GateWord.NO_FIGURE),
        ("failed", GateWord.NO_FIGURE),
    ],
)
def test_the_only_figure_of_a_test_is_due_where_the_test_passed(
    tmp_path, verdict, word
):
    def run(name, *streams, outcomes=()):
        entries = [entry("ttft", samples(), streams=n) for n in streams]
        folder = write_run(tmp_path / name, entries=entries, outcomes=outcomes)
        return read_run(folder)

    old = [run(f"b{i}", 1, 8) for i in range(8)]
    told = {
        "nodeid": "suites/performance/test_sweep.py::"
        "test_closed_loop[topo:local_sweep:c8-local_1p1d]",
        "verdict": verdict,
        "when": "call",
    }

    result = judge(spec(), run("new", 1, outcomes=[told]), old)

    assert [line.word for line in result.lines if "c8" in line.name] == [word]


@pytest.mark.parametrize(
    ("now", "before"),
    [
        ({"streams": 1}, {"streams": 8}),
        ({"valid": False}, {}),
        ({"outcome": "failed"}, {}),
        ({"input_tokens_mean": 4800.0}, {"input_tokens_mean": 48.0}),
    ],
)
def test_a_figure_that_was_not_due_is_not_worse(tmp_path, now, before):
    both = ("ttft", "goodput_time")
    old = [night(tmp_path / f"b{i}", *both, **before) for i in range(8)]
    entries = [entry("ttft", samples(), **now), entry("ttft", samples(), streams=64)]
    new = read_run(write_run(tmp_path / "new", entries=entries, verdict=passed()))

    result = judge(spec(metrics={**METRICS, **GOOD}), new, old)

    assert not result.of(GateWord.WORSE)
    assert "goodput_time" in " ".join(map(str, result.of(GateWord.NO_FIGURE)))


def test_a_figure_that_comes_and_goes_is_not_worse_where_it_is_missing(tmp_path):
    old = [night(tmp_path / f"b{i}", "ttft", "goodput_time") for i in range(4)]
    old += [night(tmp_path / "b4", "ttft")]

    result = judge(
        spec(metrics={**METRICS, **GOOD}), night(tmp_path / "new", "ttft"), old
    )

    assert not result.of(GateWord.WORSE)


def test_gate_without_a_figure_is_an_error(tmp_path, baseline):
    with pytest.raises(MeasurementError, match="no valid figure of ttft"):
        judge(spec(), make(tmp_path / "new", valid=False), baseline)


def test_invalid_baseline_figures_do_not_count(tmp_path):
    bad = [make(tmp_path / f"b{i}", valid=False) for i in range(3)]

    assert words(judge(spec(), make(tmp_path / "new"), bad)) == [GateWord.NO_BASELINE]


def test_the_newest_of_single_topologies_are_those_of_the_newest_runs(tmp_path):
    for day in range(6):
        make(tmp_path / f"b{day}")
    new = make(tmp_path / "new").path

    found = read_baseline(
        spec(keep=2, baseline=["b*/local_1p1d"]), tmp_path, without=[new]
    )

    assert [run.path.parent.name for run in found] == ["b4", "b5"]


def test_newest_runs_count_and_the_run_itself_does_not(tmp_path, baseline):
    found = read_baseline(spec(keep=3), tmp_path, without=[tmp_path / "b7"])

    assert [run.run_id for run in found] == ["b4", "b5", "b6"]


@pytest.mark.parametrize(
    "others",
    [
        {"topology": "k2", "topology_hash": "k2"},
        {"label": "mine"},
        {"hardware": "h100"},
        {"mode": "rehearsal"},
        {"streams": 64},
        {"input_tokens_mean": 480.0},
    ],
)
def test_newer_runs_of_something_else_take_no_place(tmp_path, others):
    length = {"input_tokens_mean": 48.0}
    for night in range(8):
        make(tmp_path / f"b{night:02}", jitter=0.01, **length)
    for number in range(8, 20):
        make(tmp_path / f"b{number:02}", 9.0, **(length | others))
    new = make(tmp_path / "b20", **length)

    known = read_baseline(spec(keep=5), tmp_path, without=[new.path])
    (line,) = judge(spec(keep=5), new, known).of(GateWord.PASSED)

    assert "of 5 baseline run(s)" in str(line)


def test_each_topology_of_a_run_has_its_own_newest_runs(tmp_path):
    k2 = {"topology": "k2", "topology_hash": "k2"}

    def both(name):
        entries = [entry("ttft", samples()), entry("ttft", samples(), **k2)]
        return read_run(write_run(tmp_path / name, entries=entries, verdict=passed()))

    for night in range(4):
        both(f"b{night}")
    for number in range(4, 9):
        make(tmp_path / f"b{number}")
    new = both("b9")

    known = read_baseline(spec(keep=3), tmp_path, without=[new.path])
    lines = judge(spec(keep=3), new, known).of(GateWord.PASSED)

    assert ["of 3 baseline run(s)" in str(line) for line in lines] == [True, True]


def test_a_topology_that_was_changed_is_no_first_run(tmp_path, baseline):
    new = make(tmp_path / "new", topology_hash="x")

    known = read_baseline(spec(), tmp_path, without=[new.path])

    assert judge(spec(), new, known).failed


def test_a_point_that_was_dropped_long_ago_is_not_missed_because_of_a_new_one(tmp_path):
    def sweep(name, *points):
        entries = [entry("ttft", samples(), streams=n) for n in points]
        return read_run(write_run(tmp_path / name, entries=entries, verdict=passed()))

    sweep("b0", 1, 64)
    for night in range(1, 4):
        sweep(f"b{night}", 1)
    new = sweep("b4", 1, 8)

    known = read_baseline(spec(keep=3), tmp_path, without=[new.path])

    assert judge(spec(keep=3), new, known).of(GateWord.NO_FIGURE) == ()


def test_a_slow_down_that_stays_is_worse_every_night(tmp_path):
    for night in range(10):
        make(tmp_path / f"b{night:02}", jitter=0.01)

    said = []
    for night in range(10, 18):
        run = make(tmp_path / f"b{night}", 1.2, jitter=0.01)
        known = read_baseline(spec(), tmp_path, without=[run.path])
        (line,) = judge(spec(), run, known).lines
        call(run, line.word)
        said.append(line.word)

    assert said == [GateWord.WORSE] * 8


def test_worse_runs_count_only_where_they_are_named(tmp_path, baseline):
    for run in baseline[4:]:
        call(run, "worse")

    new = make(tmp_path / "new").path
    found = read_baseline(spec(keep=3), tmp_path, without=[new])
    named = read_baseline(spec(baseline=["b*", "b6"]), tmp_path, without=[new])

    assert [run.run_id for run in found] == ["b1", "b2", "b3"]
    assert [run.run_id for run in named] == ["b0", "b1", "b2", "b3", "b6"]


def test_a_baseline_of_worse_runs_only_is_no_first_run(tmp_path, baseline):
    for run in baseline:
        call(run, "worse")

    new = make(tmp_path / "new").path
    with pytest.raises(MeasurementError, match="All 8 runs of the gate's baseline"):
        read_baseline(spec(), tmp_path, without=[new])


def test_a_run_after_one_that_measured_nothing_is_the_first(tmp_path):
    make(tmp_path / "b0")
    (tmp_path / "b0/local_1p1d/entries.jsonl").write_text("")

    assert read_baseline(spec(), tmp_path, without=[tmp_path / "b1"]) == []


@pytest.mark.parametrize(
    ("judged", "named"), [("b0/local_1p1d", "b*"), ("b0", "b*/local_1p1d")]
)
def test_a_topology_of_the_run_itself_is_no_baseline_either(tmp_path, judged, named):
    make(tmp_path / "b0")

    found = read_baseline(spec(baseline=[named]), tmp_path, without=[tmp_path / judged])

    assert found == []


def load(streams, arrivals="closed"):
    return {"load": {"concurrency": streams, "arrivals": arrivals}}


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ({"input_tokens_mean": 48.0}, {"input_tokens_mean": 24.0}, "input_tokens_mean"),
        ({"slo": {"ttft_ms": 500}}, {"slo": {"ttft_ms": 900}}, "slo {'ttft_ms': 500}"),
        (load(8), load(4), "concurrency 8 against 4"),
    ],
)
def test_runs_under_another_load_are_no_baseline_and_it_is_told(
    tmp_path, before, now, told
):
    old = [make(tmp_path / f"b{i}", **before) for i in range(3)]

    result = judge(spec(), make(tmp_path / "new", 2.0, **now), old)

    assert words(result) == [GateWord.NO_BASELINE]
    assert f"; 3 baseline run(s) under another load: {told}" in str(result.lines[0])
    assert result.failed


def test_runs_under_the_same_load_are_judged_and_the_others_told(tmp_path):
    old = [make(tmp_path / f"b{i}", input_tokens_mean=48.0) for i in range(8)]
    old += [make(tmp_path / "b8", 9.0, input_tokens_mean=480.0)]

    result = judge(spec(), make(tmp_path / "new", input_tokens_mean=48.0), old)

    assert words(result) == [GateWord.PASSED]
    assert "of 8 baseline run(s)" in str(result.lines[0])
    assert "; 1 baseline run(s) under another load" in str(result.lines[0])


def test_answers_that_end_by_themselves_are_as_long_by_chance(tmp_path):
    rng = np.random.default_rng(1)

    def length():
        lengths = rng.lognormal(5.0, 0.47, 64).astype(int)  # half of their mean
        return {"output_tokens_mean": float(lengths.mean()), **load(8)}

    old = [make(tmp_path / f"b{i}", jitter=0.01, **length()) for i in range(8)]

    same = judge(spec(), make(tmp_path / "same", **length()), old)
    slow = judge(spec(), make(tmp_path / "slow", 3.0, **length()), old)

    assert words(same) == [GateWord.PASSED]
    assert words(slow) == [GateWord.WORSE]
    assert "of 8 baseline run(s)" in str(slow.lines[0])


@pytest.mark.parametrize(
    ("before", "now", "is_other"),
    [
        (16.0, 16.0, False),
        (16.0, 17.0, True),
        (16, 17, True),
        (163.4, 187.2, False),
        (163.4, 245.1, True),
        (163.4, 16.0, True),
    ],
)
def test_how_far_answers_may_differ(before, now, is_other):
    told = other_load({"output_tokens_mean": before}, {"output_tokens_mean": now})

    assert bool(told) == is_other


def test_prompts_are_as_long_as_asked_whatever_ends_the_answers():
    old, new = ({"input_tokens_mean": mean} for mean in (163.4, 187.2))

    assert other_load(old, new)


def test_a_figure_that_lost_its_baseline_to_its_load_is_told_beside_one_that_passed(
    tmp_path,
):
    def run(name, slow=1.0, **more):
        entries = [
            entry("ttft", samples()),
            entry("ttft", samples(slow), streams=8, **more),
        ]
        return read_run(write_run(tmp_path / name, entries=entries, verdict=passed()))

    old = [run(f"b{i}", output_tokens_mean=163.4) for i in range(8)]

    result = judge(spec(), run("new", 3.0, output_tokens_mean=320.7), old)

    assert not result.failed
    assert result.summary().startswith(
        "gate passed: 1 no baseline, 1 passed; 1 without a baseline only because the "
        "load is another one: not judged"
    )


def test_wrong_key_names_the_nearest(tmp_path):
    path = tmp_path / "g.yaml"
    path.write_text("baseline: [x]\nmetrics: {ttft: {max_increse: 0.1}}\n")

    with pytest.raises(SpecError, match="max_increase"):
        read_gate(path)


@pytest.mark.parametrize(
    ("scale", "code", "word"), [(1.0, 0, "passed"), (2.0, 1, "worse")]
)
def test_command_exits_by_the_judgement(tmp_path, baseline, capsys, scale, code, word):
    path = tmp_path / "g.yaml"
    path.write_text("baseline: ['b*']\nmetrics: {ttft: {max_increase: 0.1}}\n")
    make(tmp_path / "new", scale)

    assert main(["gate", str(path), str(tmp_path / "new")]) == code
    assert f"{word}: performance/test_sweep" in capsys.readouterr().out


def test_metric_without_a_figure_is_told_and_fails_only_if_asked(tmp_path, baseline):
    both = {**METRICS, "itl": {"max_increase": 0.1}}
    new = make(tmp_path / "new")

    result = judge(spec(metrics=both), new, baseline)

    assert [str(line) for line in result.of(GateWord.NO_FIGURE)] == ["no figure: itl"]
    assert not result.failed
    assert judge(spec(metrics=both, fail_on_missing=True), new, baseline).failed


def test_gaps_of_zero_do_not_hide_a_slower_tail(tmp_path):
    def gaps(name, scale):
        values = [0.0] * 100 + [scale * (0.01 + i * 1e-5) for i in range(100)]
        path = write_run(tmp_path / name, entries=[entry("itl", values)])
        return read_run(path)

    gate = spec(metrics={"itl": {"max_increase": 0.1, "statistic": "p99"}})
    old = [gaps(f"b{i}", 1.0) for i in range(8)]

    assert words(judge(gate, gaps("new", 1.0), old)) == [GateWord.PASSED]
    assert words(judge(gate, gaps("slow", 2.0), old)) == [GateWord.WORSE]


def test_many_metrics_teach_what_one_cannot(tmp_path):
    rng = np.random.default_rng(11)
    metrics = {f"m{i}": {"max_increase": 0.05} for i in range(20)}

    def one(name, slow=()):
        weather = np.exp(rng.normal(0, 0.01, 20))
        entries = [
            entry(
                metric,
                [
                    *(
                        np.exp(rng.normal(-3, 0.02, 100))
                        * w
                        * (1 + 0.1 * (metric in slow))
                    )
                ],
            )
            for metric, w in zip(metrics, weather, strict=True)
        ]
        return read_run(write_run(tmp_path / name, entries=entries, verdict=passed()))

    old = [one(f"b{i}") for i in range(4)]
    new = one("new", slow=("m3",))

    together = judge(spec(metrics=metrics), new, old)
    alone = judge(spec(metrics={"m3": metrics["m3"]}, alpha=0.03 / 20), new, old)

    assert [line.name[-2:] for line in together.of(GateWord.WORSE)] == ["m3"]
    assert words(alone) == [GateWord.TOO_NOISY]
