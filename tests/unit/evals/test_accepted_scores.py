"""The store of accepted scores, which only a command writes."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pd.cli import main
from pytest_pd.errors import SpecError
from pytest_pd.evals.baseline import (
    AcceptedSpec,
    Subject,
    find_expected,
    how_to_add,
    read_store,
    write_store,
)
from pytest_pd.evals.record import keep, read_records

SUBJECT = Subject("kimi", "k2_2p1d", "gb200", "vllm 0.32.0")
DAY = datetime.date(2026, 11, 21)


@pytest.fixture
def make_entry():
    def _make(**change) -> AcceptedSpec:
        values = {
            "model": SUBJECT.model,
            "topology": SUBJECT.topology,
            "hardware": SUBJECT.hardware,
            "engine": SUBJECT.engine,
            "eval": "e",
            "task": "t",
            "metric": "exact_match,none",
            "right": 190,
            "samples": 200,
            "run": "r1",
            "date": DAY,
            "reason": "first run",
        }
        return AcceptedSpec.model_validate({**values, **change})

    return _make


@pytest.fixture
def run_dir(tmp_path) -> Path:
    """A run of one topology with one task, its own gates passed."""
    folder = tmp_path / "run-1" / "k2_2p1d"
    folder.mkdir(parents=True)
    write_result(folder)
    return tmp_path / "run-1"


def write_result(folder: Path, *, score: float = 0.95, paired: str = "passed") -> None:
    gates = {"paired": {"outcome": paired}, "reference": {"outcome": "unknown"}}
    task = {
        "metric": "exact_match,none",
        "score": score,
        "samples": 200,
        "limit": None,
        "shots": None,
        "gates": gates,
    }
    keep(folder, SUBJECT, "e", {"tasks": {"t": task}})


def test_what_is_written_is_read_back(tmp_path, make_entry):
    entries = [make_entry(), make_entry(task="u")]

    write_store(tmp_path / "s" / "accepted.yaml", entries)

    assert list(read_store(tmp_path / "s" / "accepted.yaml")) == entries


def test_no_file_holds_nothing(tmp_path):
    assert read_store(tmp_path / "none.yaml") == ()


def test_one_score_twice_is_refused(tmp_path, make_entry):
    write_store(tmp_path / "a.yaml", [make_entry(), make_entry(right=1)])

    with pytest.raises(SpecError, match="two scores of 't'"):
        read_store(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"model": "other"}, id="model"),
        pytest.param({"topology": "k2_4p1d"}, id="topology"),
        pytest.param({"hardware": "h100"}, id="hardware"),
        pytest.param({"engine": "vllm 0.33.0"}, id="engine-version"),
        pytest.param({"eval": "other"}, id="eval"),
        pytest.param({"limit": 50}, id="limit"),
        pytest.param({"shots": 5}, id="shots"),
        pytest.param({"metric": "acc,none"}, id="metric"),
    ],
)
def test_a_score_of_something_else_is_not_taken(make_eval, make_entry, change):
    spec = make_eval("reference")

    assert find_expected(spec, "t", SUBJECT, [make_entry(**change)]) is None
    assert find_expected(spec, "t", SUBJECT, [make_entry()]).right == 190


def test_accepted_wins_over_stated(make_eval, make_entry):
    stated = {"model": "kimi", "task": "t", "score": 0.9, "source": "a paper"}
    spec = make_eval("reference", references=[stated])

    assert find_expected(spec, "t", SUBJECT, []).score == 0.9
    assert find_expected(spec, "t", SUBJECT, [make_entry()]).score == 0.95


def test_a_stated_score_goes_by_the_weights_as_well(make_eval):
    stated = {"model": "Kimi-K2", "task": "t", "score": 0.9, "source": "a paper"}
    spec = make_eval("reference", references=[stated])

    assert find_expected(spec, "t", SUBJECT, []) is None
    assert find_expected(spec, "t", SUBJECT, [], weights="Kimi-K2").score == 0.9


def test_an_unknown_score_says_how_to_add_it(make_eval):
    error = how_to_add(make_eval("reference"), "t", SUBJECT)

    assert "'kimi'" in str(error)
    assert "pytest-pd evals accept RUN" in str(error)


def accept(run_dir: Path, store: Path, *more: str) -> int:
    words = ["evals", "accept", str(run_dir), "--reason", "looks right"]
    return main([*words, "--store", str(store), *more])


def test_accepting_shows_first_and_writes_with_yes(run_dir, tmp_path, capsys):
    store = tmp_path / "accepted.yaml"

    assert accept(run_dir, store) == 0
    assert not store.exists()
    assert "new -> 0.9500 of 200" in capsys.readouterr().out
    assert accept(run_dir, store, "--yes") == 0

    (entry,) = read_store(store)
    assert (entry.right, entry.samples, entry.run) == (190, 200, "run-1")
    assert entry.reason == "looks right"


def test_accepting_again_renews_one_score_and_shows_both(run_dir, tmp_path, capsys):
    store = tmp_path / "accepted.yaml"
    accept(run_dir, store, "--yes")
    write_result(run_dir / "k2_2p1d", score=0.9)

    accept(run_dir, store, "--yes")

    assert "0.9500 of 200 -> 0.9000 of 200" in capsys.readouterr().out
    assert [entry.right for entry in read_store(store)] == [180]


def test_a_run_that_lost_accuracy_is_not_accepted(run_dir, tmp_path, capsys):
    write_result(run_dir / "k2_2p1d", paired="failed")
    store = tmp_path / "accepted.yaml"

    assert accept(run_dir, store, "--yes") == 2
    assert "t (paired)" in capsys.readouterr().err
    assert accept(run_dir, store, "--yes", "--even-so") == 0


def test_a_score_of_shares_is_not_accepted(run_dir, tmp_path, capsys):
    write_result(run_dir / "k2_2p1d", score=0.12345)

    assert accept(run_dir, tmp_path / "accepted.yaml", "--yes") == 2
    assert "no score that counts" in capsys.readouterr().err


def test_a_reason_is_asked_for(run_dir):
    with pytest.raises(SystemExit):
        main(["evals", "accept", str(run_dir)])


def test_a_reason_that_says_nothing_is_refused(run_dir, tmp_path, capsys):
    store = tmp_path / "accepted.yaml"

    assert accept(run_dir, store, "--yes", "--reason", "ok") == 2
    assert "The reason 'ok' has fewer than 3 letters" in capsys.readouterr().err
    assert not store.exists()


def test_a_folder_without_scores_is_named(tmp_path, capsys):
    assert main(["evals", "show", str(tmp_path)]) == 2
    assert "holds no evals.json" in capsys.readouterr().err


def test_show_fails_on_what_did_not_pass(run_dir, capsys):
    assert main(["evals", "show", str(run_dir)]) == 1
    out = capsys.readouterr().out
    assert "e:t 0.950 of 200" in out
    assert "reference: unknown" in out


def test_scores_of_another_subject_are_not_joined(run_dir):
    folder = run_dir / "k2_2p1d"
    before = (folder / "evals.json").read_text()

    with pytest.raises(SpecError, match=r"model 'kimi'.* model 'b'") as caught:
        keep(folder, replace(SUBJECT, model="b"), "other", {"tasks": {}})

    assert "--out" in caught.value.hint
    assert (folder / "evals.json").read_text() == before


def test_a_second_eval_joins_the_record(run_dir):
    folder = run_dir / "k2_2p1d"

    keep(folder, SUBJECT, "other", {"tasks": {}})

    (record,) = read_records(run_dir).values()
    assert sorted(record["evals"]) == ["e", "other"]
    assert record["subject"]["engine"] == "vllm 0.32.0"
    assert json.loads((folder / "evals.json").read_text()) == record


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"subject": {}, "evals": []}'])
def test_a_file_of_another_shape_is_told(run_dir, text, capsys):
    (path,) = run_dir.glob("*/evals.json")
    path.write_text(text)

    assert main(["evals", "show", str(run_dir)]) == 2
    assert "holds no scores that this version can read" in capsys.readouterr().err
