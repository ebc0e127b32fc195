"""Accepting a baseline: a file to review, keyed by set-up, that a gate reads."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest

from pytest_pd.cli import main
from pytest_pd.errors import SpecError
from pytest_pd.measure.ratio import Summary, compare_runs, relative_error
from pytest_pd.spec.baseline import read_baselines
from tests.run_kit import entry, passed, write_run

RNG = np.random.default_rng(5)
GATE = "baseline: [base.yaml]\nmetrics: {ttft: {max_increase: 0.1}}\n"


def samples(scale=1.0, count=200):
    weather = math.exp(RNG.normal(0, 0.01))
    return [*(np.exp(RNG.normal(-3, 0.05, count)) * scale * weather)]


def make(path, scale=1.0, verdict=None, **more):
    entries = [entry("ttft", samples(scale), **more)]
    return write_run(path, entries=entries, verdict=verdict or passed())


def accept(tmp_path, *words):
    return main(
        ["accept-baseline", *map(str, words), "--into", str(tmp_path / "base.yaml")]
    )


def specs(tmp_path):
    return read_baselines(tmp_path / "base.yaml").baselines


def gate(tmp_path, run, text=GATE):
    (tmp_path / "g.yaml").write_text(text)
    return main(["gate", str(tmp_path / "g.yaml"), str(run)])


def test_file_holds_the_figures_that_a_person_reviews(tmp_path, capsys):
    run = make(tmp_path / "r1", hardware="h100", engine="vllm")

    assert accept(tmp_path, run, "--reason", "first: really", "--by", "me") == 0

    (spec,) = specs(tmp_path)
    assert (spec.hardware, spec.topology, spec.engine) == ("h100", "local_1p1d", "vllm")
    assert (spec.by, spec.reason, spec.runs) == ("me", "first: really", ("r1",))
    ((name, figures),) = spec.figures.items()
    assert name.endswith("::ttft")
    assert {*figures} == {"p50", "p99"}
    assert figures["p50"].values[0] == pytest.approx(0.05, rel=0.05)
    assert 0 < figures["p50"].errors[0] < 0.02
    text = (tmp_path / "base.yaml").read_text()
    assert text.startswith("# Accepted baselines")
    assert "      p50:\n        unit: s\n        values: [0.0" in text
    out = capsys.readouterr().out
    assert "s of 1 run(s), new" in out
    assert "review it, then commit it" in out


def test_other_set_ups_stay_and_the_own_one_is_replaced(tmp_path, capsys):
    accept(tmp_path, make(tmp_path / "a", hardware="h100"))
    accept(tmp_path, make(tmp_path / "b", hardware="gb200"))
    before = specs(tmp_path)
    capsys.readouterr()

    accept(tmp_path, make(tmp_path / "c", 2.0, hardware="h100"))

    after = {spec.hardware: spec for spec in specs(tmp_path)}
    assert after["gb200"] == before[0]
    assert after["h100"].runs == ("c",)
    told = capsys.readouterr().out
    assert "was 0.0" in told
    assert "(+" in told
    assert "gb200" not in told


def test_runs_add_up_where_that_is_asked(tmp_path):
    accept(tmp_path, make(tmp_path / "a1"), make(tmp_path / "a2"))
    accept(tmp_path, make(tmp_path / "a3"), "--add")

    (spec,) = specs(tmp_path)
    assert spec.runs == ("a1", "a2", "a3")
    assert all(len(f["p50"].values) == 3 for f in spec.figures.values())


def test_runs_of_another_load_do_not_add_up(tmp_path, capsys):
    accept(tmp_path, make(tmp_path / "a", input_tokens_mean=48.0))

    assert accept(tmp_path, make(tmp_path / "b", input_tokens_mean=24.0), "--add") == 2
    assert "another load: input_tokens_mean 48.0" in capsys.readouterr().err


def test_gate_holds_no_other_load_against_what_was_accepted(tmp_path, capsys):
    accept(tmp_path, make(tmp_path / "a", input_tokens_mean=48.0))

    assert gate(tmp_path, make(tmp_path / "b", 2.0, input_tokens_mean=24.0)) == 1
    assert "1 baseline run(s) under another load: input" in capsys.readouterr().out


def test_run_that_is_added_again_counts_once(tmp_path, capsys):
    first = make(tmp_path / "a1")
    accept(tmp_path, first)
    accept(tmp_path, first, make(tmp_path / "a2"), "--add")
    before = (tmp_path / "base.yaml").read_bytes()
    capsys.readouterr()

    assert accept(tmp_path, first, "--add") == 2

    assert "no figure that holds and is not accepted" in capsys.readouterr().err
    assert (tmp_path / "base.yaml").read_bytes() == before
    (spec,) = specs(tmp_path)
    assert spec.runs == ("a1", "a2")
    assert all(len(f["p50"].values) == 2 for f in spec.figures.values())


def test_run_that_is_named_twice_counts_once(tmp_path):
    run = make(tmp_path / "a1")
    copy = tmp_path / "elsewhere" / "a1"
    shutil.copytree(run, copy)

    accept(tmp_path, run, copy)

    (spec,) = specs(tmp_path)
    assert all(len(f["p50"].values) == 1 for f in spec.figures.values())


def test_accepting_the_same_again_changes_only_who_and_when(tmp_path):
    run = make(tmp_path / "a")
    accept(tmp_path, run)
    first = (tmp_path / "base.yaml").read_text().splitlines()

    accept(tmp_path, run, "--reason", "again")

    second = (tmp_path / "base.yaml").read_text().splitlines()
    moved = [b for a, b in zip(first, second, strict=True) if a != b]
    assert [line.split(":")[0].strip() for line in moved][-1] == "reason"
    assert len(moved) <= 2


@pytest.mark.parametrize(("scale", "code"), [(1.0, 0), (1.5, 1)])
def test_gate_holds_runs_against_the_file(tmp_path, capsys, scale, code):
    accept(tmp_path, *(make(tmp_path / f"a{i}") for i in range(6)))
    for i in range(6):
        (tmp_path / f"a{i}").rename(tmp_path / f"gone{i}")

    assert gate(tmp_path, make(tmp_path / "new", scale)) == code
    assert "of 6 baseline run(s)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "other",
    [{"hardware": "x"}, {"topology_hash": "x"}, {"engine": "x"}, {"label": "x"}],
)
def test_figures_of_other_set_ups_are_no_baseline(tmp_path, capsys, other):
    accept(tmp_path, make(tmp_path / "a"))

    assert gate(tmp_path, make(tmp_path / "new", 9.0, **other)) == 1
    assert "1 no baseline; nothing was judged" in capsys.readouterr().out


def test_statistic_that_was_not_accepted_is_no_baseline(tmp_path, capsys):
    accept(tmp_path, make(tmp_path / "a"))
    text = GATE.replace("max_increase: 0.1", "max_increase: 0.1, statistic: p90")

    assert gate(tmp_path, make(tmp_path / "new"), text) == 1
    assert "1 no baseline; nothing was judged" in capsys.readouterr().out


def test_file_that_accepts_nothing_lets_nothing_pass(tmp_path):
    (tmp_path / "base.yaml").write_text("baselines: []\n")

    assert gate(tmp_path, make(tmp_path / "new")) == 1


def test_only_what_the_gate_judges_is_kept_where_one_is_named(tmp_path):
    (tmp_path / "g.yaml").write_text(
        "baseline: [x]\nmetrics: {ttft: {max_increase: 0.1, statistic: p90}}\n"
    )
    entries = [entry("ttft", samples()), entry("itl", samples())]
    run = write_run(tmp_path / "a", entries=entries, verdict=passed())

    accept(tmp_path, run, "--gate", tmp_path / "g.yaml")

    ((name, figures),) = specs(tmp_path)[0].figures.items()
    assert name.endswith("ttft")
    assert {*figures} == {"p90"}


@pytest.mark.parametrize("verdict", [passed(1, failed=1), passed(1, invalid=1)])
def test_run_that_did_not_pass_is_refused(tmp_path, capsys, verdict):
    run = make(tmp_path / "a", verdict=verdict)

    assert accept(tmp_path, run) == 2
    assert "no baseline" in capsys.readouterr().err
    assert not (tmp_path / "base.yaml").exists()
    assert accept(tmp_path, run, "--force") == 0


def test_run_without_a_figure_is_refused(tmp_path, capsys):
    assert accept(tmp_path, make(tmp_path / "a", valid=False)) == 2
    assert "no figure that holds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("baselines: [{topology: t, hardwear: x}]\n", "hardware"),
        (
            "baselines: [{topology: t, figures: {a: {m: {values: [1], errors: []}}}}]",
            "errors",
        ),
        (
            "baselines: [{topology: t, figures: {a: {m: {values: [0], errors: [0]}}}}]",
            "above 0",
        ),
    ],
)
def test_wrong_file_is_told_with_its_place(tmp_path, text, told):
    (tmp_path / "base.yaml").write_text(text)

    with pytest.raises(SpecError, match=told):
        specs(tmp_path)


def test_missing_file_fails_the_gate(tmp_path, capsys):
    assert gate(tmp_path, make(tmp_path / "new")) == 2
    assert "base.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("statistic", ["p50", "p99", "mean"])
def test_summaries_judge_as_their_samples_do(statistic):
    runs = [samples() for _ in range(5)]
    short = [
        Summary(
            compare_runs([run], [run], statistic=statistic).old,
            relative_error(run, statistic),
        )
        for run in runs
    ]

    whole = compare_runs(runs[:4], runs[4:], statistic=statistic)
    brief = compare_runs(short[:4], runs[4:], statistic=statistic)

    assert brief.value == pytest.approx(whole.value)
    assert brief.low == pytest.approx(whole.low, rel=0.02)
    assert brief.high == pytest.approx(whole.high, rel=0.02)


def test_a_run_that_the_gate_called_worse_comes_in_by_accepting_it(tmp_path):
    worse = {**passed(), "exit_status": 1, "gate": "worse"}
    nights = [make(tmp_path / f"r{k}", 1.5, verdict=worse) for k in range(4)]
    new = make(tmp_path / "new", 1.5)

    assert accept(tmp_path, *nights) == 2
    assert accept(tmp_path, *nights, "--force") == 0

    assert gate(tmp_path, new) == 0
